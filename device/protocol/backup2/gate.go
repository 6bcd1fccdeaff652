package backup2

import (
	"net"
	"sync"
	"time"
)

// gate is the connection under the link. It lets a session be woken where it
// waits for the device's next request, and nowhere else, and bounds how long
// greeting and goodbye may take.
type gate struct {
	net.Conn
	mu      sync.Mutex
	waiting bool
	stopped bool
	done    <-chan struct{} // of the caller's context
	latest  time.Time       // no deadline is later; zero for no such limit
}

// past is a deadline that ends what is waiting.
var past = time.Unix(1, 0)

// wait says whether the session waits for a request now. It reports false when
// it should not do so any more.
func (g *gate) wait(waiting bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = waiting
	select {
	case <-g.done: // a fast device could ask much before stop is called
		g.stopped = true
	default:
	}
	return !g.stopped
}

// until makes the session stop when done is closed, at the latest when stop is
// called.
func (g *gate) until(done <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = done
}

// stop wakes the session, now or as soon as it waits.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	if g.waiting {
		g.Conn.SetReadDeadline(past) // an error means that it is closed
	}
}

// within bounds all that follows; 0 ends that.
func (g *gate) within(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.latest = time.Time{}
	if d > 0 {
		g.latest = time.Now().Add(d)
	}
}

func (g *gate) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped && g.waiting {
		t = past
	}
	return g.Conn.SetReadDeadline(g.bounded(t))
}

func (g *gate) SetWriteDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.Conn.SetWriteDeadline(g.bounded(t))
}

func (g *gate) bounded(t time.Time) time.Time {
	if !g.latest.IsZero() && (t.IsZero() || t.After(g.latest)) {
		return g.latest
	}
	return t
}
