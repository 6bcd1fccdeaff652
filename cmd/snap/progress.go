package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// How often progress is shown.
const (
	terminalEvery = 200 * time.Millisecond
	lineEvery     = 10 * time.Second
)

// meter is what progress shows.
type meter struct {
	phase             string
	percent           int64 // where there are no bytes to count
	files, totalFiles int64 // 0 where there are none to count
	bytes, totalBytes int64
}

// showProgress shows what read returns until the returned function is called:
// a line that changes on a terminal, otherwise a line every few seconds.
func (a *app) showProgress(read func() meter) (stop func()) {
	if a.quiet || a.json {
		return func() {}
	}
	f, ok := a.stderr.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	every := lineEvery
	if terminal {
		every = terminalEvery
	}
	p := &progress{start: time.Now()}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				if terminal {
					fmt.Fprint(a.stderr, "\r\x1b[K")
				}
				return
			case now := <-ticker.C:
				line := p.line(read(), now)
				if terminal {
					if width, _, err := term.GetSize(int(f.Fd())); err == nil && len(line) >= width && width > 1 {
						line = line[:width-1]
					}
					fmt.Fprint(a.stderr, "\r\x1b[K"+line)
				} else {
					fmt.Fprintln(a.stderr, line)
				}
			}
		}
	})
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// progress turns meters into lines.
type progress struct {
	start time.Time
	phase string
}

func (p *progress) line(m meter, now time.Time) string {
	if m.phase != p.phase {
		p.phase, p.start = m.phase, now
	}
	parts := []string{m.phase}
	if m.percent > 0 {
		parts[0] += fmt.Sprintf(" %3d%%", m.percent)
	}
	if m.totalBytes > 0 {
		parts[0] += fmt.Sprintf(" %3d%%", min(100, m.bytes*100/m.totalBytes))
		parts = append(parts, fmt.Sprintf("%s of %s", bytesText(m.bytes), bytesText(m.totalBytes)))
	}
	if m.totalFiles > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s files", count(m.files), count(m.totalFiles)))
	}
	if spent := now.Sub(p.start); spent > time.Second && m.bytes > 0 {
		speed := float64(m.bytes) / spent.Seconds()
		parts = append(parts, bytesText(int64(speed))+"/s")
		if left := m.totalBytes - m.bytes; left > 0 {
			eta := time.Duration(float64(left) / speed * float64(time.Second)).Round(time.Second)
			parts = append(parts, "ETA "+eta.String())
		}
	}
	return strings.Join(parts, ", ")
}
