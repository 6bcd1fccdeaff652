package backup2

import (
	"net"
	"sync"
	"time"
)

// gate is the connection below the link. It can wake a session that waits for the
// device's next request, and only there. It also limits greeting and goodbye.
type gate struct {
	net.Conn
	mu      sync.Mutex
	waiting bool
	stopped bool
	done    <-chan struct{} // of the caller's context
	latest  time.Time       // limit of all deadlines; zero means none
}

// past is a deadline that ends a waiting call.
var past = time.Unix(1, 0)

// wait sets whether the session waits for a request now. It returns false if the
// session must stop.
func (g *gate) wait(waiting bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = waiting
	select {
	case <-g.done: // a fast device could send many requests before stop is called
		g.stopped = true
	default:
	}
	return !g.stopped
}

// until makes the session stop when done is closed.
func (g *gate) until(done <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = done
}

// stop wakes the session, now or when it waits next.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	if g.waiting {
		_ = g.Conn.SetReadDeadline(past) // fails only if it is closed
	}
}

// within limits the time of all that follows; 0 removes the limit.
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
