package limit

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rate{
		"0": 0, "1": 1 << 10, "500": 500 << 10, "500K": 500 << 10, "500KiB": 500 << 10, "2MiB": 2 << 20, "2M/s": 2 << 20,
		" 1.5 MiB/s": 3 << 19, "1G": 1 << 30, "1024GiB": 1 << 40, "0.5M": 1 << 19,
	} {
		if got, err := ParseRate(text); got != want || err != nil {
			t.Errorf("ParseRate(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "8Mbit", "2MB", "500kB", "NaN", "Inf", "0.5", "1025GiB", "1e300", "MiB", "1 2", "/s"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %d", text, got)
		}
	}
}

// Any rate is written as it can be read.
func FuzzParseRate(f *testing.F) {
	for _, text := range []string{"0", "500", "2MiB", "1.5M/s", "1e3K", "0x1p9"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRate(text)
		if err != nil {
			return
		}
		if r != 0 && r < least || r > most {
			t.Errorf("%q is %d", text, int64(r))
		}
		if again, err := ParseRate(r.String()); again != r || err != nil {
			t.Errorf("%q is %d, which is written %s, which is %d, %v", text, int64(r), r, int64(again), err)
		}
	})
}

func FuzzParseConnections(f *testing.F) {
	f.Add("5")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := ParseConnections(text); err == nil && (n < 1 || n > maxConnections) {
			t.Errorf("%q is %d", text, n)
		}
	})
}

// ends returns a connection with limits, and its other end.
func ends(t *testing.T, l *Limits) (near, far net.Conn) {
	near, far = net.Pipe()
	near = l.Conn(near)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// within fails unless a time is at most a twentieth from another one.
func within(t *testing.T, about string, got time.Duration, want float64) {
	t.Helper()
	if math.Abs(got.Seconds()-want) > want/20 {
		t.Errorf("%s took %v, want %v s", about, got, want)
	}
}

// TestShared sends and receives on several connections at the same time. All bytes together
// take as long as the limit says, whatever is written at once, and a small message waits only
// for pieces of the others.
func TestShared(t *testing.T) {
	t.Parallel()
	for _, r := range []Rate{1 << 10, 100 << 10, 2 << 20} {
		t.Run(r.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testShared(t, r) })
		})
	}
}

func testShared(t *testing.T, r Rate) {
	const conns, seconds = 4, 20
	l := New(r, r/2)
	size := int(r) * seconds / conns
	total := float64(seconds)
	start := time.Now()
	var sent, received atomic.Int64 // when the last ones were finished
	var wg sync.WaitGroup
	for i := range conns {
		near, far := ends(t, l)
		wg.Go(func() {
			if n, err := near.Write(make([]byte, size)); n != size || err != nil {
				t.Errorf("%d of %d bytes were sent, %v", n, size, err)
			}
			sent.Store(int64(time.Since(start)))
		})
		wg.Go(func() { _, _ = io.CopyN(io.Discard, far, int64(size)) })
		back := bytes.Repeat([]byte{byte(i)}, size)
		wg.Go(func() { _, _ = far.Write(back) })
		wg.Go(func() {
			got, err := io.ReadAll(io.LimitReader(near, int64(size)))
			if !bytes.Equal(got, back) || err != nil {
				t.Errorf("%d of %d bytes were received, %v", len(got), size, err)
			}
			received.Store(int64(time.Since(start)))
		})
	}
	near, far := ends(t, l)
	go func() { _, _ = io.Copy(io.Discard, far) }()
	time.Sleep(time.Duration(total * float64(time.Second) / 2))
	asked := time.Now()
	if _, err := near.Write(make([]byte, 100)); err != nil {
		t.Error(err)
	}
	// Every other connection has one piece at most before it.
	if wait, most := time.Since(asked), float64((conns+1)*piece(r)+100)/float64(r); wait.Seconds() > most {
		t.Errorf("a small message waited %v beside large ones, want at most %v s", wait, most)
	}
	wg.Wait()
	within(t, "sending", time.Duration(sent.Load()), total)
	within(t, "receiving", time.Duration(received.Load()), 2*total)
}

// TestIdle: a connection that was idle does not send all that it could have sent.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t, New(1<<20, 0))
		go func() { _, _ = io.Copy(io.Discard, far) }()
		time.Sleep(time.Hour)
		start := time.Now()
		_, _ = near.Write(make([]byte, 10<<20))
		within(t, "sending after an hour", time.Since(start), 10)
	})
}

// TestSmooth: no half second passes without bytes, and none with many more than its share. A
// watchdog below sees that.
func TestSmooth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const r = 64 << 10
		near, far := ends(t, New(r, 0))
		go func() { _, _ = near.Write(make([]byte, 20*r)) }()
		buf := make([]byte, 1<<20)
		for received, start := 0, time.Now(); received < 20*r; {
			before := time.Now()
			n, err := far.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			received += n
			if wait := time.Since(before); wait > 100*time.Millisecond {
				t.Errorf("no byte came for %v", wait)
			}
			if most := r*time.Since(start).Seconds() + r/5; float64(received) > most {
				t.Errorf("%d bytes in %v", received, time.Since(start))
			}
		}
	})
}

// TestClose: closing ends a wait, in either direction and for a pipe.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(1<<10, 1<<10)
		near, far := ends(t, l)
		go func() { _, _ = io.Copy(io.Discard, far) }()
		go func() { _, _ = far.Write(make([]byte, 1<<20)) }()
		r, w, stop := l.Pipe(bytes.NewReader(make([]byte, 1<<20)), discard{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := near.Write(make([]byte, 1<<20)); err == nil || n == 1<<20 {
				t.Errorf("Write = %d, %v", n, err)
			}
		})
		wg.Go(func() {
			if n, err := io.Copy(io.Discard, near); err == nil {
				t.Errorf("all %d bytes were read", n)
			}
		})
		wg.Go(func() {
			if n, err := io.Copy(io.Discard, r); !errors.Is(err, net.ErrClosed) {
				t.Errorf("reading from the pipe = %d, %v", n, err)
			}
		})
		wg.Go(func() {
			if n, err := w.Write(make([]byte, 1<<20)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("writing to the pipe = %d, %v", n, err)
			}
		})
		time.Sleep(10 * time.Second)
		start := time.Now()
		_ = near.Close()
		stop()
		wg.Wait()
		if time.Since(start) > 0 {
			t.Errorf("closing took %v", time.Since(start))
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func TestNoLimit(t *testing.T) {
	t.Parallel()
	l := New(0, 0)
	near, _ := net.Pipe()
	r, w, stop := l.Pipe(near, near)
	stop()
	if l != nil || l.Conn(near) != near || r != near || w != near || l.Slowest(3) != 0 {
		t.Error("a connection without limits is changed")
	}
	for _, tt := range []struct {
		l          *Limits
		operations int
		want       Rate
	}{{New(1000, 0), 5, 200}, {New(0, 1000), 0, 1000}, {New(3000, 1000), 5, 200}, {New(1, 0), 5, 1}} {
		if got := tt.l.Slowest(tt.operations); got != tt.want {
			t.Errorf("Slowest(%d) of %+v = %d, want %d", tt.operations, tt.l, got, tt.want)
		}
	}
}
