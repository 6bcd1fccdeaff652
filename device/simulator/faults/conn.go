package faults

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/simulator/hostfiles"
)

// Conn is the connection that carries a conversation. If the script has a cut after a
// number of bytes, Conn closes itself there.
type Conn struct {
	net.Conn
	player *Player

	early []byte // bytes that Present read; only the conversation's goroutine uses it

	mu  sync.Mutex
	cut bool
}

// NewConn returns a connection with the faults of a player.
func NewConn(c net.Conn, p *Player) *Conn { return &Conn{Conn: c, player: p} }

// Present returns a context that ends when the host disconnects or sends anything.
// Use it while the host has to wait for the device, and then call end.
func (c *Conn) Present(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var b [1]byte
	n := 0
	var reading sync.WaitGroup
	reading.Go(func() {
		var err error
		if n, err = c.Conn.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	})
	return ctx, func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		reading.Wait()
		_ = c.SetReadDeadline(time.Time{})
		c.early = append(c.early, b[:n]...)
		cancel()
	}
}

func (c *Conn) Read(p []byte) (n int, err error) {
	if len(c.early) > 0 {
		n = copy(p, c.early)
		c.early = c.early[n:]
	} else {
		n, err = c.Conn.Read(p)
	}
	allowed, cut := c.player.pass(n)
	if cut {
		c.Cut()
		return allowed, hostfiles.ErrCut
	}
	return n, err
}

func (c *Conn) Write(p []byte) (int, error) {
	allowed, cut := c.player.pass(len(p))
	if !cut {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:allowed])
	c.Cut()
	return n, errors.Join(err, hostfiles.ErrCut)
}

// Cut closes the connection at once.
func (c *Conn) Cut() {
	c.mu.Lock()
	c.cut = true
	c.mu.Unlock()
	_ = c.Conn.Close()
}

// CloseWrite closes the sending side, if the underlying connection can do that.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// WasCut reports whether the connection was cut on purpose.
func (c *Conn) WasCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}
