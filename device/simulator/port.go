package simulator

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

const (
	lockdownPort = 62078
	firstPort    = 49152
	lastPort     = 62000
	maxPorts     = 256 // ports that wait for a connection
	handshake    = 30 * time.Second
)

// port is a service that waits at a port.
type port struct {
	service string
	handler Handler
	tls     *tls.Config // nil: plain text
}

// ports holds the ports of started services. Each port accepts one connection.
type ports struct {
	open  map[uint16]port
	order []uint16
	next  uint16
}

// openPort opens a port for one connection. If too many ports are open, it closes the
// oldest one.
func (d *Device) openPort(p port) uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ports.order) == maxPorts {
		delete(d.ports.open, d.ports.order[0])
		d.ports.order = d.ports.order[1:]
	}
	n := d.ports.next
	for _, taken := d.ports.open[n]; taken; _, taken = d.ports.open[n] {
		n++
	}
	d.ports.next = n + 1
	if d.ports.next > lastPort {
		d.ports.next = firstPort
	}
	d.ports.open[n] = p
	d.ports.order = append(d.ports.order, n)
	return n
}

// connectTo returns the service at a port. It closes the port, unless this is
// lockdownPort.
func (d *Device) connectTo(n uint16) (port, bool) {
	if n == lockdownPort {
		return port{service: Lockdown, handler: d.serveLockdown}, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.ports.open[n]
	if ok {
		delete(d.ports.open, n)
		for i, other := range d.ports.order {
			if other == n {
				d.ports.order = append(d.ports.order[:i:i], d.ports.order[i+1:]...)
				break
			}
		}
	}
	return p, ok
}

// serve serves a connection to a port until its handler returns or the link ends.
func (l *Link) serve(ctx context.Context, raw net.Conn, p port) {
	defer raw.Close()
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leave, ok := l.enter(cancel)
	if !ok {
		return
	}
	defer leave()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()

	d := l.dev
	// Take the fault before TLS begins: a host that has set up TLS may close this
	// connection at once and expect the next fault to hit its next connection.
	fault := d.faults.take(p.service)
	var stream net.Conn = raw
	if p.tls != nil {
		secure, err := startTLS(ctx, raw, p.tls)
		if err != nil {
			d.Log(p.service, "close", "TLS: "+err.Error())
			return
		}
		stream = secure
	}
	c := &conn{Conn: stream, raw: raw, done: ctx.Done(), service: p.service, dev: d, link: l, fault: fault}
	d.faults.add(c)
	defer d.faults.remove(c)
	d.Log(p.service, "connect", string(l.Transport))
	c.mu.Lock()
	c.check()
	c.mu.Unlock()
	if l.Transport == Network && p.service != Lockdown && p.service != Heartbeat {
		background.Go(func() { l.expectHeartbeat(ctx) })
	}
	p.handler(ctx, c)
	if ctx.Err() == nil {
		c.Close()
	}
	d.Log(p.service, "close", "")
}

// startTLS starts the device's side of a TLS connection.
func startTLS(ctx context.Context, c net.Conn, conf *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	secure := tls.Server(c, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}
