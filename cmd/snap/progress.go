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

// meter is the state that progress shows.
type meter struct {
	phase             string
	percent           int64 // shown if there are no bytes to count
	files, totalFiles int64 // 0 if there are none to count
	bytes, totalBytes int64
}

// showProgress calls read and shows its result, again and again until stop is called.
// On a terminal this is one line that changes, otherwise a new line every few seconds.
func (a *app) showProgress(read func() meter) (stop func()) {
	if a.quiet || a.json {
		return func() {}
	}
	terminal := a.terminal() != nil
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
					fmt.Fprint(a.stderr, eraseLine)
				}
				return
			case now := <-ticker.C:
				line := p.line(read(), now)
				if terminal {
					fmt.Fprint(a.stderr, eraseLine+fitTerminal(line, a.terminal()))
				} else {
					fmt.Fprintln(a.stderr, line)
				}
			}
		}
	})
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// eraseLine makes a terminal erase the current line.
const eraseLine = "\r\x1b[K"

// terminal returns standard error if it is a terminal on which a line can be erased,
// otherwise nil.
func (a *app) terminal() *os.File {
	if f, ok := a.stderr.(*os.File); ok && obeys(f) {
		return f
	}
	return nil
}

// fitTerminal cuts a line so that it does not wrap in a terminal.
func fitTerminal(line string, f *os.File) string {
	if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 1 {
		return fit(line, columns-1)
	}
	return line
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
		parts = append(parts, fmt.Sprintf("%s of %s", count(m.files), plural(m.totalFiles, "file")))
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
