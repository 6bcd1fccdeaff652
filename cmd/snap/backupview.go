package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/protocol/backup2"
)

// board shows the progress of several devices.
type board struct {
	a     *app
	views []*view

	mu     sync.Mutex  // held while printing
	asking sync.Mutex  // held during a prompt
	quiet  atomic.Bool // a prompt is open: print no progress

	end  chan struct{}
	wait sync.WaitGroup
}

// view shows the progress of one device.
type view struct {
	board   *board
	udid    string
	name    string
	storing *blob.Progress // progress of the steps after the device has finished

	mu        sync.Mutex
	phase     backup2.Phase
	progress  backup2.Progress
	lastEvent time.Time // time of the last progress event, with --json
	line      progress
	ended     bool
	prompted  bool
}

var _ host.Observer = (*view)(nil)

// newBoard starts to show progress; stop ends it.
func (a *app) newBoard(ctx context.Context, m *device.Mux, entries []device.Entry) *board {
	b := &board{a: a, end: make(chan struct{})}
	for _, e := range entries {
		name := e.UDID
		// The name is only for messages. A failure to connect is reported later.
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

// terminal reports whether progress is one line that is redrawn.
func (b *board) terminal() bool {
	return len(b.views) == 1 && b.a.terminal() != nil
}

func (b *board) stop() {
	close(b.end)
	b.wait.Wait()
	b.say(func() {})
}

// say prints something that progress must not overwrite.
func (b *board) say(print func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terminal() && !b.a.quiet && !b.a.json {
		fmt.Fprint(b.a.stderr, eraseLine)
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
		b.say(func() { fmt.Fprint(b.a.stderr, fitTerminal(line, b.a.terminal())) })
	}
}

// text returns the line of a device.
func (v *view) text(now time.Time) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.ended || v.phase == "":
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
	v.ended = true
}

// deviceProgress is a line of standard error with --json.
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

// With --json, event writes a line. The caller must hold v.mu.
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

// jsonEvery is the shortest time between two progress events.
const jsonEvery = time.Second

// Progress implements host.Observer.
func (v *view) Progress(p backup2.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.progress = p
	if now := time.Now(); now.Sub(v.lastEvent) >= jsonEvery {
		v.lastEvent = now
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

// Prompt implements host.Observer. It prints despite --quiet, because the device
// waits for the passcode.
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
	v.board.say(func() { fmt.Fprintln(v.board.a.messages(), clean(text)) })
}

// bytesFlag formats a size for parseSize.
func bytesFlag(n int64) string { return strconv.FormatInt(n>>30, 10) + "G" }
