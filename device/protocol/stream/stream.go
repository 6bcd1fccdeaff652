// Package stream is what all conversations with devices stand on: streams with
// deadlines that end when a context ends, and framed property lists on them.
//
// The frames are go-ios'. Its decoding is not used, since it trusts what a
// device sends.
package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/danielpaulus/go-ios/ios"
)

// Timeout is how long a device may take for an ordinary answer.
const Timeout = 30 * time.Second

// ErrTimeout says that a device or usbmuxd did not answer in time.
var ErrTimeout = errors.New("no answer in time")

// Do runs fn, which reads from and writes to c, and makes it fail when timeout
// has passed (0: never) or ctx ends. After a failure the stream is in the
// middle of something and of no more use. One Do at a time for each stream.
func Do(ctx context.Context, c net.Conn, timeout time.Duration, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		// A failure means that the stream is closed, which is as good.
		_ = c.SetDeadline(time.Unix(1, 0))
	})
	err := fn()
	if !stop() {
		<-cut // or it would cut what comes next
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w (%v)", ErrTimeout, timeout)
	}
	return err
}

// Conn is a stream of property lists, each after its length (32 bits, big
// endian): lockdownd and most services.
type Conn struct {
	raw   net.Conn
	codec *ios.LockDownConnection
}

// New makes a Conn of a stream, which it owns from now on.
func New(c net.Conn) *Conn {
	return &Conn{raw: c, codec: ios.NewLockDownConnection(ios.NewDeviceConnectionWithConn(c))}
}

// Raw returns the stream.
func (c *Conn) Raw() net.Conn { return c.raw }

// Close closes the stream.
func (c *Conn) Close() error { return c.raw.Close() }

// Send writes a message: a value that a property list can hold.
func (c *Conn) Send(ctx context.Context, msg map[string]any) error {
	return Do(ctx, c.raw, Timeout, func() error { return c.codec.Send(msg) })
}

// Receive reads a message, waiting for at most timeout (0: as long as it
// takes). Messages over MaxMessage are refused.
func (c *Conn) Receive(ctx context.Context, timeout time.Duration) (Dict, error) {
	var raw []byte
	err := Do(ctx, c.raw, timeout, func() (err error) {
		raw, err = c.codec.ReadMessage()
		return err
	})
	if err != nil {
		return nil, err
	}
	return Decode(raw)
}

// Ask sends a message and reads the answer.
func (c *Conn) Ask(ctx context.Context, msg map[string]any) (Dict, error) {
	if err := c.Send(ctx, msg); err != nil {
		return nil, err
	}
	return c.Receive(ctx, Timeout)
}
