package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
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

	mu    sync.Mutex  // held while printing
	drawn int         // lines of progress on the terminal
	quiet atomic.Bool // a prompt is open: print no progress

	asking  sync.Mutex // held during a prompt
	offered bool       // a person was asked whether one password is for all devices
	shared  []byte     // that password, or nil

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
	b.views = make([]*view, len(entries))
	each(len(entries), readyAtOnce, func(i int) {
		e := entries[i]
		name := e.UDID
		// The name is only for messages. A failure to connect is reported later.
		if info, err := m.Describe(ctx, e); err == nil && info.Name != "" {
			name = info.Name
		}
		b.views[i] = &view{board: b, udid: e.UDID, name: name, storing: &blob.Progress{}}
	})
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

// terminal reports whether progress is redrawn in place: a line for each device.
func (b *board) terminal() bool { return b.a.terminal() != nil }

func (b *board) stop() {
	close(b.end)
	b.wait.Wait()
	b.say(func() {})
}

// say prints something that progress must not overwrite.
func (b *board) say(print func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	print()
}

// erase removes the lines of progress from the terminal. The caller must hold b.mu.
func (b *board) erase() {
	switch {
	case b.drawn == 1:
		fmt.Fprint(b.a.stderr, eraseLine)
	case b.drawn > 1:
		fmt.Fprintf(b.a.stderr, "\r\x1b[%dA\x1b[J", b.drawn-1)
	}
	b.drawn = 0
}

func (b *board) show(now time.Time) {
	if b.quiet.Load() {
		return
	}
	var lines []string
	for _, v := range b.views {
		line := v.text(now)
		if line == "" {
			continue
		}
		if len(b.views) > 1 {
			const widest = 20 // of names, so that the time left is visible at 80 columns
			name := clean(v.name)
			if b.terminal() {
				name = shorten(name, widest)
			}
			line = name + ": " + line
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return
	}
	if !b.terminal() {
		b.say(func() { fmt.Fprintln(b.a.stderr, strings.Join(lines, "\n")) })
		return
	}
	if rows := terminalHeight(b.a.terminal()); rows > 1 && len(lines) >= rows { // it must not scroll
		hidden := len(lines) - (rows - 2)
		lines = append(lines[:rows-2], fmt.Sprintf("and %s", plural(hidden, "more device")))
	}
	for i := range lines {
		lines[i] = fitTerminal(lines[i], b.a.terminal())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	fmt.Fprint(b.a.stderr, strings.Join(lines, "\n"))
	b.drawn = len(lines)
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
	// The device does not say how many bytes it will send, so only its percentage is known.
	// It often reports 100 % long before the end.
	m := meter{phase: string(v.phase), bytes: v.progress.Bytes, files: v.progress.Files}
	if v.progress.Percent < 100 {
		m.percent = int64(v.progress.Percent)
	}
	return v.line.line(m, now)
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

// Remark implements host.Observer. Remarks about several devices are printed only with
// --verbose, so that there is a line for each device.
func (v *view) Remark(text string) {
	v.mu.Lock()
	v.event("remark", text)
	v.mu.Unlock()
	if len(v.board.views) > 1 && !v.board.a.verbose {
		return
	}
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
