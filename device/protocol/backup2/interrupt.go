package backup2

import (
	"net"
	"sync"
	"time"
)

// interruptConn is the connection that the link reads and writes. It can
// interrupt the read of a session that waits for the device's next request, but
// no other read. It also limits the time of the greeting and the goodbye.
type interruptConn struct {
	net.Conn
	mu      sync.Mutex
	waiting bool
	stopped bool
	done    <-chan struct{} // of the caller's context
	latest  time.Time       // limit of all deadlines; zero means none
}

// past is a time in the past. As a deadline it ends a waiting call.
var past = time.Unix(1, 0)

// setWaiting sets whether the session waits for a request now. It returns false
// if the session must stop.
func (c *interruptConn) setWaiting(waiting bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = waiting
	select {
	case <-c.done: // a fast device could send many requests before interrupt is called
		c.stopped = true
	default:
	}
	return !c.stopped
}

// stopOn makes setWaiting return false once done is closed.
func (c *interruptConn) stopOn(done <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = done
}

// interrupt ends the session's wait for a request. If the session does not wait
// now, its next wait ends at once.
func (c *interruptConn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if c.waiting {
		_ = c.Conn.SetReadDeadline(past) // fails only if the connection is closed
	}
}

// setLimit makes all following reads and writes end within d from now; 0 removes
// the limit.
func (c *interruptConn) setLimit(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = time.Time{}
	if d > 0 {
		c.latest = time.Now().Add(d)
	}
}

func (c *interruptConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped && c.waiting {
		t = past
	}
	return c.Conn.SetReadDeadline(c.bounded(t))
}

func (c *interruptConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(c.bounded(t))
}

func (c *interruptConn) bounded(t time.Time) time.Time {
	if !c.latest.IsZero() && (t.IsZero() || t.After(c.latest)) {
		return c.latest
	}
	return t
}
