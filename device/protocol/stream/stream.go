// Package stream carries messages to and from usbmuxd and devices: property
// lists in frames, on connections with deadlines.
//
// Do bounds one exchange, such as a request and its answer, by a timeout and a
// context. Long transfers need other bounds: package devicelink limits each read
// and write, and package backup2 ends only the wait for a request.
//
// This is the only package that uses go-ios. It uses the framing of go-ios but
// not its decoding, which trusts what a device sends. It calls only functions
// that do not log, since go-ios has one logger for the process.
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

// Do runs fn, which reads from and writes to c. It makes fn fail when timeout
// has passed (0: never) or ctx ends. After a failure c cannot be used, since it
// may be in the middle of a message. Only one Do may use c at a time.
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
		// If this fails, the connection is already closed, which also ends fn.
		_ = c.SetDeadline(time.Unix(1, 0))
	})
	err := fn()
	if !stop() {
		<-cut // otherwise the deadline could end later calls
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

// Conn carries the messages of lockdownd and most services: property lists, each
// after its length (32 bits, big endian).
type Conn struct {
	raw   net.Conn
	codec ios.PlistCodec
}

// New returns a Conn on a connection, which it owns from now on.
func New(c net.Conn) *Conn { return &Conn{raw: c, codec: ios.NewPlistCodec()} }

// Raw returns the connection.
func (c *Conn) Raw() net.Conn { return c.raw }

// Close closes the connection.
func (c *Conn) Close() error { return c.raw.Close() }

// Send writes a message. Its values must have types that exist in property
// lists.
func (c *Conn) Send(ctx context.Context, msg map[string]any) error {
	b, err := c.codec.Encode(msg)
	if err != nil {
		return err
	}
	return write(ctx, c.raw, b)
}

func write(ctx context.Context, c net.Conn, b []byte) error {
	return Do(ctx, c, Timeout, func() error {
		_, err := c.Write(b)
		return err
	})
}

// Receive reads a message. It waits for at most timeout (0: without limit), and
// refuses messages longer than MaxMessage.
func (c *Conn) Receive(ctx context.Context, timeout time.Duration) (Dict, error) {
	var raw []byte
	err := Do(ctx, c.raw, timeout, func() (err error) {
		raw, err = c.codec.Decode(c.raw)
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
