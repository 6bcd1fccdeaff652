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
	p := &progress{}
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

// speedOver is the time over which the speed is measured. It is long enough for a steady
// figure, and short enough to show a slower disk or a lost connection soon.
const speedOver = 10 * time.Second

// sample is how many bytes there were at some time.
type sample struct {
	at    time.Time
	bytes int64
}

// terminalHeight returns the number of lines of a terminal, or 0 if it is not known.
func terminalHeight(f *os.File) int {
	_, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return rows
}

// progress turns meters into lines.
type progress struct {
	phase   string
	samples []sample // of the last speedOver, and one from before; the first of a phase
	began   sample   // the beginning of the phase
}

// line returns a line for a meter. The phase and the bytes come first and the number of
// files last, since a terminal may cut the end.
func (p *progress) line(m meter, now time.Time) string {
	if m.phase != p.phase || len(p.samples) == 0 || m.bytes < newest(p.samples).bytes {
		p.phase, p.began = m.phase, sample{now, m.bytes}
		p.samples = []sample{p.began}
	}
	p.samples = append(p.samples, sample{now, m.bytes})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= speedOver {
		p.samples = p.samples[1:]
	}
	done := m.totalBytes > 0 && m.bytes >= m.totalBytes
	if done {
		// All is counted, and the end takes its time: a percentage would say nothing.
		m.percent, m.totalBytes = 0, 0
		if m.bytes == p.began.bytes {
			m.bytes, m.files, m.totalFiles = 0, 0, 0
		}
	}
	var parts []string
	switch {
	case m.totalBytes > 0:
		parts = append(parts, fmt.Sprintf("%s %3d%%", m.phase, m.bytes*100/m.totalBytes), fmt.Sprintf("%s of %s", bytesText(m.bytes), bytesText(m.totalBytes)))
	case m.percent > 0:
		parts = append(parts, fmt.Sprintf("%s %3d%%", m.phase, m.percent))
	default:
		parts = append(parts, m.phase)
	}
	if m.totalBytes == 0 && m.bytes > 0 {
		parts = append(parts, bytesText(m.bytes))
	}
	if speed, known := p.speed(); known && m.bytes > 0 && !done {
		if left := m.totalBytes - m.bytes; left > 0 && speed >= 1 {
			parts = append(parts, "ETA "+timeLeft(float64(left)/speed))
		}
		parts = append(parts, bytesText(int64(speed))+"/s")
	}
	switch {
	case m.totalFiles > 0 && m.files < m.totalFiles:
		parts = append(parts, fmt.Sprintf("%s of %s", count(m.files), plural(m.totalFiles, "file")))
	case m.files > 0:
		parts = append(parts, plural(m.files, "file"))
	}
	if spent := now.Sub(p.began.at); len(parts) == 1 && spent >= speedOver {
		parts = append(parts, "for "+timeLeft(spent.Seconds()))
	}
	return strings.Join(parts, ", ")
}

// speed returns the bytes per second of the last time. It is not known in the first two
// seconds.
func (p *progress) speed() (perSecond float64, known bool) {
	first, last := p.samples[0], newest(p.samples)
	spent := last.at.Sub(first.at)
	if spent < 2*time.Second {
		return 0, false
	}
	return float64(last.bytes-first.bytes) / spent.Seconds(), true
}

// timeLeft returns a number of seconds as 45s, 3m20s or 2h05m. More precision would change
// with each line.
func timeLeft(seconds float64) string {
	const day = 24 * 60 * 60
	switch s := int64(min(seconds, 100*day)); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60/10*10)
	case s < 2*day:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	default:
		return fmt.Sprintf("%dd", s/day)
	}
}
