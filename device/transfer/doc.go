// Package transfer moves backups between folders and a repository: Import
// takes a MobileSync folder in, Materialize gives a snapshot back as one.
//
// It is where Apple's formats (package mobilesync) and storage (package repo)
// meet; neither knows of the other. It promises that a snapshot is written
// only of a backup that was complete and did not change while it was read, or
// says otherwise in its record; that what it materializes is byte for byte
// what was imported, with all folders, modes and mtimes; and that it never
// writes outside the target. It prints nothing.
package transfer

import (
	"errors"
	"sync/atomic"

	"github.com/snap-backup/snap/device/mobilesync/folder"
)

// The kinds of failure that a caller decides on; test with errors.Is.
var (
	// ErrIncomplete says that a backup is not whole and was not stored. The
	// error is an *IncompleteError.
	ErrIncomplete = errors.New("the backup is incomplete")
	// ErrChanged says that a backup changed while it was read. What was read
	// stays in the repository for the next try; no snapshot was made.
	ErrChanged = folder.ErrChanged
	// ErrTargetExists says that Materialize would replace a folder.
	ErrTargetExists = errors.New("target exists")
	// ErrVerify says that a file on disk is not what was written.
	ErrVerify = errors.New("verification failed")
)

// Progress counts work done. It is updated while a call runs; others may read
// it at any time.
type Progress struct {
	Files, TotalFiles atomic.Int64
	Bytes, TotalBytes atomic.Int64
	phase             atomic.Pointer[string]
}

// Phase says in a word or two what is being done.
func (p *Progress) Phase() string {
	if s := p.phase.Load(); s != nil {
		return *s
	}
	return ""
}

func (p *Progress) enter(phase string) { p.phase.Store(&phase) }

// batchFiles and batchBytes bound the run of neighbouring files that one
// goroutine works on: enough to fill blocks with neighbours, little enough to
// keep all goroutines busy.
const (
	batchFiles = 256
	batchBytes = 4 << 20
	// aheadBatches bounds how far the fastest goroutine may be ahead of the
	// slowest.
	aheadBatches = 64
)
