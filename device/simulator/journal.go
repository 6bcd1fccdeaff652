package simulator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Event is something that happened to a device.
type Event struct {
	Time    time.Time
	Service string // name of a service, or "lockdown", "mux", "trust"
	Kind    string // such as "connect", "close", "StartService", "post", "observe", "lock"
	Detail  string // such as the name of a notification or a path
}

func (e Event) String() string { return e.Service + " " + e.Kind + " " + e.Detail }

// Limits, so that a host cannot fill the memory.
const (
	maxEvents     = 20000
	maxViolations = 1000
)

// journal keeps events and violations.
type journal struct {
	mu         sync.Mutex
	now        func() time.Time
	first      int // number of the first event that is kept
	events     []Event
	violations []string
	more       chan struct{} // closed and replaced at every event
}

func newJournal(now func() time.Time) *journal {
	return &journal{now: now, more: make(chan struct{})}
}

func (j *journal) add(service, kind, detail string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.events) == maxEvents {
		half := maxEvents / 2
		j.events = append(j.events[:0], j.events[half:]...)
		j.first += half
	}
	j.events = append(j.events, Event{j.now(), shorten(service), shorten(kind), shorten(detail)})
	close(j.more)
	j.more = make(chan struct{})
}

// shorten returns a copy of s that is cut to a maximum length, since hosts choose most
// of the texts.
func shorten(s string) string {
	const longest = 512
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.Clone(s)
}

func (j *journal) violate(format string, args ...any) {
	text := shorten(fmt.Sprintf(format, args...))
	j.mu.Lock()
	if len(j.violations) < maxViolations {
		j.violations = append(j.violations, text)
	}
	j.mu.Unlock()
	j.add("host", "violation", text)
}

// eventsFrom returns the events from number n on. next is the number of the next event;
// happened is closed when that event happens.
func (j *journal) eventsFrom(n int) (events []Event, next int, happened <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := j.events[min(max(n-j.first, 0), len(j.events)):]
	return slices.Clone(kept), j.first + len(j.events), j.more
}

// Events returns what happened, oldest first. If there are very many events, the
// oldest ones are missing.
func (d *Device) Events() []Event {
	events, _, _ := d.journal.eventsFrom(0)
	return events
}

// Await returns the first event that matches. If no past event matches, it waits for
// one until ctx ends, and then returns the error of ctx.
func (d *Device) Await(ctx context.Context, match func(Event) bool) (Event, error) {
	next := 0
	for {
		var events []Event
		var more <-chan struct{}
		events, next, more = d.journal.eventsFrom(next)
		if i := slices.IndexFunc(events, match); i >= 0 {
			return events[i], nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Log adds an event. Handlers of services call it, too.
func (d *Device) Log(service, kind, detail string) { d.journal.add(service, kind, detail) }

// Violations returns what hosts did wrong, oldest first.
func (d *Device) Violations() []string {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	return slices.Clone(d.journal.violations)
}

// Violate records what a host did wrong. Handlers of services call it, too.
func (d *Device) Violate(format string, args ...any) { d.journal.violate(format, args...) }
