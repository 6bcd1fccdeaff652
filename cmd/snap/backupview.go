package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"golang.org/x/term"
)

// board shows how the work on one or several devices goes on.
type board struct {
	a     *app
	views []*view

	mu     sync.Mutex  // held while something is printed
	asking sync.Mutex  // held while somebody is asked
	quiet  atomic.Bool // somebody is asked: lines of progress would be in the way

	end  chan struct{}
	wait sync.WaitGroup
}

// view is one device's part of the board.
type view struct {
	board   *board
	udid    string
	name    string
	storing *blob.Progress // what is done when the device has finished

	mu       sync.Mutex
	phase    backup2.Phase
	progress backup2.Progress
	told     time.Time // of the last event with --json
	line     progress
	over     bool
	prompted bool
}

var _ host.Observer = (*view)(nil)

// newBoard begins to show; stop ends it.
func (a *app) newBoard(ctx context.Context, m *device.Mux, entries []device.Entry) *board {
	b := &board{a: a, end: make(chan struct{})}
	for _, e := range entries {
		name := e.UDID
		// Who it is, is nice to know for messages and told anew later.
		if info, err := m.Describe(ctx, e); err == nil && info.Name != "" {
			name = info.Name
		}
		b.views = append(b.views, &view{board: b, udid: e.UDID, name: name, storing: &blob.Progress{}, line: progress{start: time.Now()}})
	}
	if a.quiet || a.json {
		return b
	}
	every := lineEvery
	if b.terminal() {
		every = terminalEvery
	}
	b.wait.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-b.end:
				return
			case now := <-ticker.C:
				b.show(now)
			}
		}
	})
	return b
}

// terminal reports whether one line can be drawn again and again.
func (b *board) terminal() bool {
	f, ok := b.a.stderr.(*os.File)
	return ok && len(b.views) == 1 && term.IsTerminal(int(f.Fd()))
}

func (b *board) stop() {
	close(b.end)
	b.wait.Wait()
	b.say(func() {})
}

// say prints something that is not to be drawn over.
func (b *board) say(print func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terminal() && !b.a.quiet && !b.a.json {
		fmt.Fprint(b.a.stderr, "\r\x1b[K")
	}
	print()
}

func (b *board) show(now time.Time) {
	if b.quiet.Load() {
		return
	}
	for _, v := range b.views {
		line := v.text(now)
		if line == "" {
			continue
		}
		if !b.terminal() {
			if len(b.views) > 1 {
				line = clean(v.name) + ": " + line
			}
			b.say(func() { fmt.Fprintln(b.a.stderr, line) })
			continue
		}
		if f, ok := b.a.stderr.(*os.File); ok {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && len(line) >= width && width > 1 {
				line = line[:width-1]
			}
		}
		b.say(func() { fmt.Fprint(b.a.stderr, line) })
	}
}

// text is the line of a device.
func (v *view) text(now time.Time) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.over || v.phase == "":
		return ""
	case v.phase == host.PhaseStoring || v.phase == host.PhaseUnlocking:
		m := transferMeter(v.storing)
		if m.phase == "" {
			m.phase = string(v.phase)
		}
		return v.line.line(m, now)
	}
	m := meter{phase: string(v.phase), percent: int64(math.Round(v.progress.Percent)), bytes: v.progress.Bytes, files: v.progress.Files}
	line := v.line.line(m, now)
	if m.files > 0 {
		line += fmt.Sprintf(", %s, %s", plural(m.files, "file"), bytesText(m.bytes))
	}
	return line
}

func (v *view) done() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
}

// deviceProgress is a line on standard error with --json.
type deviceProgress struct {
	Event   string  `json:"event"` // phase, progress, remark, passcode
	UDID    string  `json:"udid"`
	Name    string  `json:"device_name"`
	Phase   string  `json:"phase,omitempty"`
	Percent float64 `json:"percent,omitempty"`
	Files   int64   `json:"files,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"`
	Text    string  `json:"text,omitempty"`
}

// event writes a line for programs. The view is locked.
func (v *view) event(kind, text string) {
	if v.board.a.json && !v.board.a.quiet {
		v.board.say(func() {
			printLine(v.board.a.stderr, deviceProgress{kind, v.udid, v.name, string(v.phase), v.progress.Percent, v.progress.Files, v.progress.Bytes, text})
		})
	}
}

// Phase implements host.Observer.
func (v *view) Phase(p backup2.Phase) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.phase != p {
		v.phase = p
		v.event("phase", "")
	}
}

// jsonEvery is how often progress is an event.
const jsonEvery = time.Second

// Progress implements host.Observer.
func (v *view) Progress(p backup2.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.progress = p
	if now := time.Now(); now.Sub(v.told) >= jsonEvery {
		v.told = now
		v.event("progress", "")
	}
}

// Warning implements host.Observer.
func (v *view) Warning(text string) {
	v.board.say(func() { v.board.a.warn("%s", named(v.name, v.udid, text)) })
}

// Remark implements host.Observer.
func (v *view) Remark(text string) {
	v.mu.Lock()
	v.event("remark", text)
	v.mu.Unlock()
	v.board.say(func() { v.board.a.remark("%s", clean(text)) })
}

// Prompt implements host.Observer. It is said whatever --quiet says: nothing
// goes on until somebody has done it.
func (v *view) Prompt(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !on || v.prompted {
		v.prompted = on
		return
	}
	v.prompted = true
	text := fmt.Sprintf("enter the passcode on %s", v.name)
	if v.board.a.json {
		v.board.say(func() {
			printLine(v.board.a.stderr, deviceProgress{Event: "passcode", UDID: v.udid, Name: v.name, Phase: string(v.phase), Text: text})
		})
		return
	}
	v.board.say(func() { fmt.Fprintln(v.board.a.stderr, clean(text)) })
}

// bytesFlag writes a size as parseSize reads it.
func bytesFlag(n int64) string { return strconv.FormatInt(n>>30, 10) + "G" }
