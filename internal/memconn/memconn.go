// Package memconn connects two parts of one process as a network does: it provides a
// net.Listener that nothing outside the process can reach.
//
// Unlike net.Pipe, a connection has buffers, so that both sides may write first.
package memconn

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Listener accepts the connections that Dial makes.
type Listener struct {
	waiting chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

// Listen returns a listener.
func Listen() *Listener {
	return &Listener{waiting: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial connects to the listener.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	near, far := Pipe()
	select {
	case l.waiting <- far:
		return near, nil
	case <-l.closed:
		return nil, fmt.Errorf("dial: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.waiting:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

// Close implements net.Listener. Open connections stay open.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return addr{} }

// addr is the address of both ends of a connection.
type addr struct{}

func (addr) Network() string { return "memory" }
func (addr) String() string  { return "memory" }

// Pipe returns the two ends of a connection.
func Pipe() (net.Conn, net.Conn) {
	a, b := newStream(), newStream()
	return &conn{read: a, write: b}, &conn{read: b, write: a}
}

type conn struct{ read, write *stream }

func (c *conn) Read(p []byte) (int, error)  { return c.read.receive(p) }
func (c *conn) Write(p []byte) (int, error) { return c.write.send(p) }
func (c *conn) LocalAddr() net.Addr         { return addr{} }
func (c *conn) RemoteAddr() net.Addr        { return addr{} }

// Close implements net.Conn. The other side can still read what was written.
func (c *conn) Close() error {
	c.read.closeReader()
	c.write.closeWriter()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.read.reader.set(c.read, t)
	c.write.writer.set(c.write, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.read.reader.set(c.read, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.write.writer.set(c.write, t)
	return nil
}
