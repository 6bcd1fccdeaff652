package device

import (
	"context"
	"fmt"
	"time"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// Change is what happened to a device.
type Change string

// The changes.
const (
	Attached Change = "attached"
	Detached Change = "detached"
	Paired   Change = "paired"
)

// Event says that usbmuxd has begun or ceased to list a device on one connection, a
// cable or Wi-Fi.
type Event struct {
	Change Change
	Entry  Entry // the device, with only this connection
}

// muxRetry is how often Watch tries to reach usbmuxd after usbmuxd ended. On
// Linux, usbmuxd ends when the last device is detached and starts when the
// next one is attached.
const muxRetry = 2 * time.Second

// Watch calls fn for every device that is already connected, and then for
// every device that is attached, detached or paired. It returns the error of ctx when
// ctx ends, and the error of fn if fn fails. If usbmuxd ends, Watch reports
// its devices as detached and waits for it to start again.
func (m *Mux) Watch(ctx context.Context, fn func(Event) error) error {
	w := watcher{fn: fn, known: map[int64]Entry{}}
	for first := true; ; first = false {
		c, err := m.dial(ctx)
		if err == nil {
			err = w.listen(ctx, c)
			c.Close()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case w.failed != nil:
			return w.failed
		case first && len(w.known) == 0 && !w.listening:
			return err
		}
		for id := range w.known {
			if err := w.forget(id); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(muxRetry):
		}
	}
}

type watcher struct {
	fn        func(Event) error
	known     map[int64]Entry
	listening bool
	failed    error // returned by fn
}

func (w *watcher) listen(ctx context.Context, c *muxConn) error {
	if _, err := c.ask(ctx, "Listen", map[string]any{"ConnType": 1}); err != nil {
		return err
	}
	w.listening = true
	for {
		d, err := c.Receive(ctx, 0)
		if err != nil {
			return fmt.Errorf("listen to usbmuxd: %w", err)
		}
		if w.failed = w.handle(d); w.failed != nil {
			return w.failed
		}
	}
}

func (w *watcher) handle(d stream.Dict) error {
	id, _ := d.Int("DeviceID")
	switch d.String("MessageType") {
	case "Attached":
		e, ok := parseEntry(d)
		if !ok || len(w.known) >= maxDevices {
			return nil
		}
		if _, twice := w.known[e.Links[0].ID]; twice {
			return nil
		}
		w.known[e.Links[0].ID] = e
		return w.fn(Event{Attached, e})
	case "Detached":
		return w.forget(id)
	case "Paired":
		if e, ok := w.known[id]; ok {
			return w.fn(Event{Paired, e})
		}
	}
	return nil
}

func (w *watcher) forget(id int64) error {
	e, ok := w.known[id]
	if !ok {
		return nil
	}
	delete(w.known, id)
	return w.fn(Event{Detached, e})
}
