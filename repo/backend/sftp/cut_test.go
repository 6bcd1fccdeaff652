package sftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
)

// filter is a link that counts what passes, and that a test can cut or block.
type filter struct {
	server string

	mu       sync.Mutex
	sent     int   // bytes to the server, of all connections
	cutAt    int   // the connection is cut when so many bytes were sent; 0 for never
	types    []int // of the requests that were sent
	rest     []byte
	received int // bytes from the server
	cutAfter int // the connection is cut when so many bytes were received; 0 for never
	links    int // connections so far
	blocked  bool
	killed   chan struct{} // closed when the current connection is killed
	kill     func()
}

func (f *filter) dial() (link, error) {
	l, err := process([]string{f.server}, false)
	if err != nil {
		return l, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links++
	f.rest = nil
	killed, kill := make(chan struct{}), l.kill
	f.killed = killed
	f.kill = sync.OnceFunc(func() { close(killed); kill() })
	l.kill = f.kill
	l.in = &filteredWriter{l.in, f}
	l.out = &filteredReader{l.out, f, killed}
	return l, nil
}

func (f *filter) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent, f.received, f.cutAt, f.cutAfter, f.types = 0, 0, 0, 0, nil
}

// cut lets the connection be cut when so many bytes were sent or received.
func (f *filter) cut(out bool, at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if out {
		f.cutAt = at
	} else {
		f.cutAfter = at
	}
}

// passed returns how many bytes were sent or received, and the number of connections.
func (f *filter) passed(out bool) (bytes, links int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if out {
		return f.sent, f.links
	}
	return f.received, f.links
}

type filteredWriter struct {
	io.WriteCloser
	f *filter
}

func (w *filteredWriter) Write(p []byte) (int, error) {
	f := w.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cutAt > 0 && f.sent+len(p) >= f.cutAt {
		part := p[:max(0, f.cutAt-f.sent)]
		_, _ = w.WriteCloser.Write(part)
		f.sent += len(part)
		f.cutAt = 0
		_ = w.WriteCloser.Close() // the server carries out what it has received
		return len(part), io.ErrClosedPipe
	}
	f.sent += len(p)
	f.rest = append(f.rest, p...)
	for len(f.rest) >= 5 {
		size := 4 + int(binary.BigEndian.Uint32(f.rest))
		if len(f.rest) < size {
			break
		}
		f.types = append(f.types, int(f.rest[4]))
		f.rest = f.rest[size:]
	}
	return w.WriteCloser.Write(p)
}

type filteredReader struct {
	io.Reader
	f      *filter
	killed chan struct{}
}

func (r *filteredReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	f := r.f
	f.mu.Lock()
	if f.blocked {
		f.mu.Unlock()
		<-r.killed
		return 0, io.EOF
	}
	defer f.mu.Unlock()
	f.received += n
	if f.cutAfter > 0 && f.received >= f.cutAfter {
		f.cutAfter = 0
		f.kill()
		return 0, io.EOF
	}
	return n, err
}

// TestInteropCut cuts the connection after any number of bytes in either direction. The
// operation must fail with an error that is temporary, the next one must connect again,
// and each file must be absent or complete.
func TestInteropCut(t *testing.T) {
	t.Parallel()
	server := opensshServer(t)
	ctx := context.Background()
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	for _, op := range []struct {
		name string
		run  func(b *Backend) error
	}{
		{"put", func(b *Backend) error { return b.Put(ctx, "packs/ab/new", data) }},
		{"read", func(b *Backend) error {
			got, err := backend.ReadAll(ctx, b, "packs/ab/old", 1<<20)
			if err == nil && !bytes.Equal(got, data) {
				return errors.New("other bytes were read")
			}
			return err
		}},
		{"list", func(b *Backend) error {
			n := 0
			err := b.List(ctx, "packs/", func(backend.Info) error { n++; return nil })
			if err == nil && n != 3 {
				return fmt.Errorf("%d files were listed", n)
			}
			return err
		}},
		{"delete", func(b *Backend) error { return b.Delete(ctx, "packs/ab/old") }},
	} {
		for _, out := range []bool{true, false} {
			f := &filter{server: server}
			setUp := func() *Backend {
				f.reset()
				b := create(t, folder(t), Options{dial: f.dial})
				for _, name := range []string{"packs/ab/old", "packs/ac/1", "packs/ad/1"} {
					put(t, b, name, string(data))
				}
				f.reset()
				return b
			}
			if err := op.run(setUp()); err != nil {
				t.Fatal(err)
			}
			total, _ := f.passed(out)
			const points = 60
			for _, point := range faultpoint.Choose(t, points, 8) {
				at := point * total / points
				b := setUp()
				f.cut(out, at+1)
				_, links := f.passed(out)
				err := op.run(b)
				if err != nil && (!backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach) || backend.Unreadable(ctx, b, err)) {
					t.Errorf("%s, cut after %d bytes: %v", op.name, at, err)
				}
				f.reset()
				again := op.run(b)
				switch {
				case again == nil:
				// The first may have succeeded over a new connection.
				case op.name == "put" && errors.Is(again, backend.ErrExist):
				case op.name == "delete" && errors.Is(again, backend.ErrNotExist):
				default:
					t.Errorf("%s, cut after %d bytes (%v), then again: %v", op.name, at, err, again)
				}
				if _, now := f.passed(out); err != nil && now != links+1 {
					t.Errorf("%d new connections", now-links)
				}
				_ = b.List(ctx, "", func(i backend.Info) error {
					if i.Size != int64(len(data)) {
						t.Errorf("%s, cut after %d bytes, leaves %+v", op.name, at, i)
					}
					return nil
				})
				_ = b.Close()
			}
		}
	}
}

// TestInteropManyInFlight kills the server while many operations run.
func TestInteropManyInFlight(t *testing.T) {
	t.Parallel()
	f := &filter{server: opensshServer(t)}
	b := create(t, folder(t), Options{dial: f.dial})
	for round := range 3 {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 20 {
					name := fmt.Sprintf("packs/%02x/%d-%d", i, round, j)
					err := b.Put(t.Context(), name, make([]byte, 100_000))
					for n := 0; backend.Temporary(err) && n < 5; n++ {
						err = b.Put(t.Context(), name, make([]byte, 100_000))
					}
					if err != nil && !errors.Is(err, backend.ErrExist) {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(30 * time.Millisecond)
		f.mu.Lock()
		f.kill()
		f.mu.Unlock()
		wg.Wait()
	}
	n := 0
	if err := b.List(t.Context(), "", func(i backend.Info) error {
		if n++; i.Size != 100_000 {
			t.Errorf("%+v", i)
		}
		return nil
	}); err != nil || n != 3*8*20 {
		t.Errorf("%d files, %v", n, err)
	}
	if removed, err := b.RemoveStale(t.Context(), 0); err != nil {
		t.Errorf("%d temporary files removed, %v", removed, err)
	}
}

// A server that stops answering must not keep an operation longer than its context and a
// short time.
func TestInteropHang(t *testing.T) {
	t.Parallel()
	f := &filter{server: opensshServer(t)}
	b := create(t, folder(t), Options{dial: f.dial})
	put(t, b, "config", "x")
	block := func(yes bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.blocked = yes
	}
	block(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := b.Stat(ctx, "config")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > patience+20*time.Second {
		t.Errorf("Stat = %v after %v", err, time.Since(begin))
	}
	block(false)
	if _, err := b.Stat(t.Context(), "config"); err != nil {
		t.Errorf("Stat afterwards = %v", err)
	}
}

// The types of SFTP's requests.
const (
	fxpOpen, fxpClose, fxpRead, fxpWrite, fxpLstat, fxpSetstat = 3, 4, 5, 6, 7, 9
	fxpOpendir, fxpReaddir, fxpRemove, fxpExtended             = 11, 12, 13, 200
)

// TestInteropRequests counts the requests of each operation.
func TestInteropRequests(t *testing.T) {
	f := &filter{server: opensshServer(t)}
	b := create(t, folder(t), Options{dial: f.dial})
	put(t, b, "packs/ab/1", "content")
	time.Sleep(200 * time.Millisecond) // nobody waits for the last close
	steps := []struct {
		about string
		run   func() error
		want  []int
	}{
		{
			"put", func() error { return b.Put(t.Context(), "packs/ab/2", []byte("content")) },
			[]int{fxpOpen, fxpClose, fxpWrite, fxpLstat, fxpLstat, fxpSetstat, fxpExtended, fxpExtended, fxpOpen, fxpExtended, fxpClose, fxpRemove},
		},
		{
			"first read", func() error { _, err := b.ReadAt(t.Context(), "packs/ab/2", make([]byte, 3), 1); return err },
			[]int{fxpLstat, fxpOpen, fxpRead},
		},
		{
			"second read", func() error { _, err := b.ReadAt(t.Context(), "packs/ab/2", make([]byte, 3), 2); return err },
			[]int{fxpLstat, fxpRead},
		},
		{"stat", func() error { _, err := b.Stat(t.Context(), "packs/ab/2"); return err }, []int{fxpLstat}},
		{
			"list", func() error { return b.List(t.Context(), "packs/ab/", func(backend.Info) error { return nil }) },
			[]int{fxpLstat, fxpOpendir, fxpReaddir, fxpReaddir, fxpClose},
		},
		{
			"delete", func() error { return b.Delete(t.Context(), "packs/ab/1") },
			[]int{fxpLstat, fxpRemove, fxpOpen, fxpExtended, fxpClose},
		},
	}
	for _, s := range steps {
		f.reset()
		if err := s.run(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(s.want)
		var got []int
		for range 100 { // nobody waits for the close
			f.mu.Lock()
			got = slices.Sorted(slices.Values(f.types))
			f.mu.Unlock()
			if len(got) >= len(s.want) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("%s sends %v, want %v", s.about, got, s.want)
		}
	}
}
