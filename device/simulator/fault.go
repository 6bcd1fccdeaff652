package simulator

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Direction says which bytes of a connection Fault.After counts.
type Direction int

const (
	Either   Direction = iota // bytes in both directions
	FromHost                  // bytes that the device has read
	ToHost                    // bytes that the device has sent
)

// Fault breaks or silences a connection to a service.
type Fault struct {
	Service   string // name of a service, Lockdown, or "" for any
	Direction Direction
	// After is the number of bytes that pass before the fault. For Lockdown these are
	// bytes on the wire, for services the bytes inside TLS.
	After int64
	// Silent makes the fault stop all bytes but leave the connection open.
	Silent bool
	// Now applies the fault to all open connections instead of the next connection.
	Now bool
}

// maxFaults is the greatest number of faults that wait for a connection.
const maxFaults = 1024

var errCut = errors.New("simulated fault: the connection is cut")

// faults holds the faults that wait for a connection, and the open connections.
type faults struct {
	mu      sync.Mutex
	waiting []Fault
	open    map[*conn]struct{}
	latency time.Duration
}

func (f *Fault) fits(service string) bool { return f.Service == "" || f.Service == service }

// Inject applies a fault to the next connection to its service. If f.Now is set,
// Inject applies it to the open connections instead.
func (d *Device) Inject(f Fault) {
	d.faults.mu.Lock()
	var hit []*conn
	if f.Now {
		for c := range d.faults.open {
			if f.fits(c.service) {
				hit = append(hit, c)
			}
		}
	} else if len(d.faults.waiting) < maxFaults {
		d.faults.waiting = append(d.faults.waiting, f)
	}
	d.faults.mu.Unlock()
	for _, c := range hit {
		c.set(f)
	}
}

// Cut breaks the next connection to a service after a number of bytes, counted in
// both directions together.
func (d *Device) Cut(service string, afterBytes int64) {
	d.Inject(Fault{Service: service, After: afterBytes})
}

// Break breaks the open connections to a service.
func (d *Device) Break(service string) { d.Inject(Fault{Service: service, Now: true}) }

// SetLatency makes the device wait before every write.
func (d *Device) SetLatency(by time.Duration) {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.latency = by
}

func (f *faults) delay() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latency
}

// take removes the first fault that waits for a service, and returns it.
func (f *faults) take(service string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.waiting {
		if fault.fits(service) {
			f.waiting = slices.Delete(f.waiting, i, i+1)
			return &fault
		}
	}
	return nil
}

func (f *faults) add(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[*conn]struct{}{}
	}
	f.open[c] = struct{}{}
}

func (f *faults) remove(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, c)
}

// conn is a connection to a service, and may have a fault. If the service has TLS, Read
// and Write carry the bytes inside TLS.
type conn struct {
	net.Conn // with TLS if the service has it
	raw      net.Conn
	done     <-chan struct{} // closed when the connection has to end
	service  string
	dev      *Device
	link     *Link

	mu      sync.Mutex
	in, out int64
	fault   *Fault
	silent  bool
	cut     bool
}

// set applies a fault to an open connection.
func (c *conn) set(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = &f
	c.check()
}

// check triggers the fault if it is due. c.mu must be held.
func (c *conn) check() {
	if c.fault == nil || c.remaining() > 0 {
		return
	}
	if c.fault.Silent {
		c.silent = true
	} else {
		c.cut = true
		c.raw.Close()
	}
	c.fault = nil
	c.dev.Log(c.service, "fault", "")
}

// remaining returns the number of bytes until the fault.
func (c *conn) remaining() int64 {
	n := c.fault.After
	if c.fault.Direction != ToHost {
		n -= c.in
	}
	if c.fault.Direction != FromHost {
		n -= c.out
	}
	return n
}

// allow returns how many of n bytes may pass in a direction. It returns an error if
// the connection is unusable.
func (c *conn) allow(dir Direction, n int) (int, error) {
	c.mu.Lock()
	c.check()
	silent, cut := c.silent, c.cut
	if c.fault != nil && (c.fault.Direction == Either || c.fault.Direction == dir) {
		n = int(min(int64(n), c.remaining()))
	}
	c.mu.Unlock()
	if silent {
		return 0, c.hang()
	}
	if cut {
		return 0, errCut
	}
	return n, nil
}

// addPassed counts n further bytes that have passed in a direction.
func (c *conn) addPassed(dir Direction, n int) {
	c.mu.Lock()
	if dir == FromHost {
		c.in += int64(n)
	} else {
		c.out += int64(n)
	}
	c.check()
	c.mu.Unlock()
}

// hang reads and discards what the host sends until the connection ends.
func (c *conn) hang() error {
	_, _ = io.Copy(io.Discard, c.raw)
	return errCut
}

func (c *conn) Read(p []byte) (int, error) {
	allowed, err := c.allow(FromHost, len(p))
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p[:allowed])
	c.mu.Lock()
	silenced := c.silent // perhaps set while Read waited
	c.mu.Unlock()
	if silenced {
		return 0, c.hang()
	}
	c.addPassed(FromHost, n)
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if delay := c.dev.faults.delay(); delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.done:
			return 0, net.ErrClosed
		}
	}
	written := 0
	for {
		allowed, err := c.allow(ToHost, len(p)-written)
		if err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written : written+allowed])
		written += n
		c.addPassed(ToHost, n)
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// endedByHost reports whether the host ended the connection c, rather than a fault
// or ctx. c must have ended.
func endedByHost(ctx context.Context, c net.Conn) bool {
	if ctx.Err() != nil {
		return false
	}
	if c, ok := c.(*conn); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.cut && !c.silent
	}
	return true
}
