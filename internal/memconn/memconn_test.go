package memconn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Both sides write more than there is room for, and each reads all that the other
// wrote.
func TestBothWays(t *testing.T) {
	t.Parallel()
	a, b := Pipe()
	content := bytes.Repeat([]byte("0123456789"), room/5)
	var all sync.WaitGroup
	for _, c := range []net.Conn{a, b} {
		all.Go(func() {
			for rest := content; len(rest) > 0; {
				n, err := c.Write(rest[:min(len(rest), 7777)])
				if err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		all.Go(func() {
			got := make([]byte, len(content))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%v; equal: %v", err, bytes.Equal(got, content))
			}
		})
	}
	all.Wait()
}

func TestClose(t *testing.T) {
	t.Parallel()
	a, b := Pipe()
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Error(err)
	}
	a.Close()
	a.Close()
	if got, err := io.ReadAll(b); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A call that waits ends at its deadline, or when either side is closed.
func TestWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		end         func(a, b net.Conn)
		read, write error
	}{
		"deadline":         {func(a, _ net.Conn) { _ = a.SetDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		"deadline of both": {func(a, _ net.Conn) { _ = a.SetReadDeadline(time.Now()); _ = a.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		"closed here":      {func(a, _ net.Conn) { a.Close() }, net.ErrClosed, net.ErrClosed},
		"closed there":     {func(_, b net.Conn) { b.Close() }, io.EOF, syscall.EPIPE},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				var all sync.WaitGroup
				all.Go(func() {
					_, err := a.Read(make([]byte, 1))
					if !errors.Is(err, c.read) {
						t.Errorf("read: %v", err)
					}
				})
				all.Go(func() {
					n, err := a.Write(make([]byte, room+1))
					if n != room || !errors.Is(err, c.write) {
						t.Errorf("write: %d, %v", n, err)
					}
				})
				synctest.Wait()
				c.end(a, b)
				all.Wait()
				var timeout net.Error
				if _, err := a.Read(make([]byte, 1)); c.read == os.ErrDeadlineExceeded && (!errors.As(err, &timeout) || !timeout.Timeout()) {
					t.Errorf("%v is no timeout", err)
				}
				if c.read == os.ErrDeadlineExceeded { // the deadline can be lifted
					if err := a.SetDeadline(time.Time{}); err != nil {
						t.Error(err)
					}
					if _, err := b.Write([]byte("x")); err != nil {
						t.Error(err)
					}
					if _, err := a.Read(make([]byte, 1)); err != nil {
						t.Error(err)
					}
				}
				a.Close()
				b.Close()
			})
		})
	}
}

func TestListener(t *testing.T) {
	t.Parallel()
	l := Listen()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	for range 3 {
		c, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
		c.Close()
	}
	l.Close()
	l.Close()
	if _, err := l.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Listen().Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
