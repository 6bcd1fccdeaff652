package blob

import "sync/atomic"

// Progress counts the files and bytes that were read or written. It is updated
// while a call runs; other goroutines may read it at any time.
type Progress struct {
	Files, TotalFiles atomic.Int64
	Bytes, TotalBytes atomic.Int64
	phase             atomic.Pointer[string]
}

// Phase returns what is being done, in a word or two.
func (p *Progress) Phase() string {
	if s := p.phase.Load(); s != nil {
		return *s
	}
	return ""
}

// Enter begins a phase.
func (p *Progress) Enter(phase string) { p.phase.Store(&phase) }
