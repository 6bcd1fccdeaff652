// Package limit limits how many bytes per second the connections to stores send and receive.
//
// It counts what passes through a connection: the bytes of files, and also what a protocol
// and TLS add to them. All connections share one limit. They take turns after a small piece,
// so that a large file leaves smoothly and a small request does not wait for it.
//
// A connection that waits for its turn is not stuck. A watchdog that closes connections on
// which no byte moves must be below this package: it then sees only pieces, and no waits.
package limit

import (
	"context"
	"io"
	"net"
	"sync"

	"golang.org/x/time/rate"
)

// Limits are the limits that connections share. A nil *Limits limits nothing.
type Limits struct {
	upload, download Rate
	up, down         *rate.Limiter // nil for no limit
}

// New returns limits for the bytes that are sent and received. It returns nil if there are
// none.
func New(upload, download Rate) *Limits {
	if upload <= 0 && download <= 0 {
		return nil
	}
	return &Limits{max(upload, 0), max(download, 0), limiter(upload), limiter(download)}
}

// A piece takes a 20th of a second, within these bounds. Timers are late by milliseconds, so
// a limiter that was idle may catch up two pieces.
const (
	smallestPiece = 512
	largestPiece  = 64 << 10
	perSecond     = 20
)

func limiter(r Rate) *rate.Limiter {
	if r <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(r), max(piece(r), int(min(r*2/perSecond, 1<<30))))
}

// piece returns how many bytes may pass at once.
func piece(r Rate) int { return int(max(smallestPiece, min(largestPiece, r/perSecond))) }

// Slowest returns the rate of one of several operations that share the lower limit; 0 without
// a limit.
func (l *Limits) Slowest(operations int) Rate {
	if l == nil {
		return 0
	}
	lower := min(l.upload, l.download)
	if lower == 0 {
		lower = max(l.upload, l.download)
	}
	return max(1, lower/Rate(max(1, operations)))
}

// Conn returns a connection that keeps the limits. Close ends its waits.
func (l *Limits) Conn(c net.Conn) net.Conn {
	if l == nil {
		return c
	}
	g := newGate()
	return &conn{Conn: c, r: reader{c, l.down, piece(l.download), g}, w: writer{w: c, l: l.up, piece: piece(l.upload), gate: g}}
}

// Pipe returns the ends of a pipe to a program that keep the limits. stop ends their waits,
// for a caller that kills the program; so does closing w.
func (l *Limits) Pipe(r io.Reader, w io.WriteCloser) (lr io.Reader, lw io.WriteCloser, stop func()) {
	if l == nil {
		return r, w, func() {}
	}
	g := newGate()
	return reader{r, l.down, piece(l.download), g}, &writeCloser{writer{w: w, l: l.up, piece: piece(l.upload), gate: g}, w}, g.close
}

// gate is a place where bytes wait for their turn.
type gate struct {
	ctx   context.Context
	close context.CancelFunc
}

func newGate() *gate {
	ctx, cancel := context.WithCancel(context.Background())
	return &gate{ctx, cancel}
}

// pass waits until n bytes may pass.
func (g *gate) pass(l *rate.Limiter, n int) error {
	if err := l.WaitN(g.ctx, n); err != nil {
		return net.ErrClosed // no other error is possible: the context has no deadline, and pieces are small
	}
	return nil
}

type reader struct {
	r     io.Reader
	l     *rate.Limiter
	piece int
	gate  *gate
}

// Read reads a piece, and then waits: nobody knows before how many bytes come, or when.
func (r reader) Read(p []byte) (int, error) {
	if r.l == nil {
		return r.r.Read(p)
	}
	n, err := r.r.Read(p[:min(len(p), r.piece)])
	if n > 0 && err == nil {
		err = r.gate.pass(r.l, n)
	}
	return n, err
}

type writer struct {
	w     io.Writer
	l     *rate.Limiter
	piece int
	gate  *gate
	mu    sync.Mutex // nothing comes between the pieces of a Write
}

// Write writes piece by piece, each when it is its turn.
func (w *writer) Write(p []byte) (int, error) {
	if w.l == nil {
		return w.w.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := 0; ; {
		part := p[n:min(len(p), n+w.piece)]
		if err := w.gate.pass(w.l, len(part)); err != nil {
			return n, err
		}
		m, err := w.w.Write(part)
		if n += m; err != nil || n >= len(p) {
			return n, err
		}
	}
}

type writeCloser struct {
	writer
	c io.Closer
}

// Close ends waits before it closes what is behind them.
func (w *writeCloser) Close() error {
	w.gate.close()
	return w.c.Close()
}

// conn is a connection with limits.
type conn struct {
	net.Conn
	r reader
	w writer
}

func (c *conn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.w.Write(p) }

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.w.gate.close()
	return c.Conn.Close()
}
