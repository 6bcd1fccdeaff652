package proxytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/retry"
)

// Store is a store that can be reached through a proxy, and without it.
type Store struct {
	Proxy *Proxy
	// Open opens the store through the proxy. It may fail as operations do.
	Open func(t testing.TB) (backend.Backend, error)
	// Direct is the same store without the proxy.
	Direct backend.Backend
	// Patience is how long an operation may take on a dead line.
	Patience time.Duration
	// Sample is how many pairs of a fault and an operation are tried without SNAP_TEST_ALL.
	Sample int
}

// fault is something that happens to a line.
type fault struct {
	about  string
	toxics []Toxic
	late   []Toxic
	// later is how long after the beginning of an operation it happens; 0 for before.
	later time.Duration
	// harmless says that operations must succeed.
	harmless bool
	down     bool
}

const (
	up   = "upstream"
	down = "downstream"
	// slow makes the line slow enough for something to happen in the middle of a file: a
	// third of a second.
	slow = 1000 // kB per second
	size = 300_000
)

func toxic(kind, stream string, attributes map[string]int) Toxic {
	return Toxic{Type: kind, Stream: stream, Attributes: attributes}
}

func bandwidth(stream string) Toxic {
	return toxic("bandwidth", stream, map[string]int{"rate": slow})
}

func both(kind string, attributes map[string]int) []Toxic {
	return []Toxic{toxic(kind, up, attributes), toxic(kind, down, attributes)}
}

// faults returns what can happen.
func faults() []fault {
	const middle = 120 * time.Millisecond
	all := []fault{
		{about: "latency", toxics: both("latency", map[string]int{"latency": 20, "jitter": 5}), harmless: true},
		{about: "bandwidth", toxics: both("bandwidth", map[string]int{"rate": slow}), harmless: true},
		{about: "small packets", toxics: both("slicer", map[string]int{"average_size": 500, "size_variation": 200, "delay": 10}), harmless: true},
		{about: "slow close", toxics: both("slow_close", map[string]int{"delay": 300}), harmless: true},
		{about: "down", down: true},
		{about: "down in the middle", toxics: []Toxic{bandwidth(up), bandwidth(down)}, later: middle, down: true},
		{about: "reset at once", toxics: both("reset_peer", map[string]int{"timeout": 0})},
	}
	for _, stream := range []string{up, down} {
		all = append(all,
			fault{about: "reset in the middle, " + stream, toxics: []Toxic{bandwidth(up), bandwidth(down), toxic("reset_peer", stream, map[string]int{"timeout": 100})}},
			fault{about: "half open, " + stream, toxics: []Toxic{toxic("timeout", stream, map[string]int{"timeout": 0})}},
			fault{about: "half open in the middle, " + stream, toxics: []Toxic{bandwidth(up), bandwidth(down)}, late: []Toxic{toxic("timeout", stream, map[string]int{"timeout": 0})}, later: middle},
			fault{about: "closed without bytes, " + stream, toxics: []Toxic{toxic("limit_data", stream, map[string]int{"bytes": 0})}},
		)
		for _, at := range []int{1, 100, 2000, 20_000, 150_000, size} {
			all = append(all, fault{about: fmt.Sprintf("closed after %d bytes, %s", at, stream), toxics: []Toxic{toxic("limit_data", stream, map[string]int{"bytes": at})}})
		}
	}
	return all
}

// Run checks what a store must do on a bad line: each operation succeeds exactly, or fails in
// time with a temporary error of a store out of reach. No file is partial. When the line is good
// again, the same operation succeeds if it is repeated. Nothing is left running.
//
// Without SNAP_TEST_ALL it tries a sample. No other test may run at the same time.
func Run(t *testing.T, s Store) {
	all := faults()
	for _, i := range faultpoint.Sample(t, len(all)*len(operations), s.Sample) {
		f, op := all[i/len(operations)], operations[i%len(operations)]
		t.Run(f.about+"/"+op.name, func(t *testing.T) {
			NoLeaks(t, func() { s.try(t, f, op) })
		})
	}
}

// operation is one of a store. Its error is errWrong if it returns something wrong.
type operation struct {
	name string
	run  func(ctx context.Context, b backend.Backend) error
}

const (
	oldName = "packs/ab/old"
	newName = "packs/cd/new"
)

func content(name string) []byte { return bytes.Repeat([]byte(name), size/len(name)) }

var operations = []operation{
	{"put", func(ctx context.Context, b backend.Backend) error { return b.Put(ctx, newName, content(newName)) }},
	{"get", func(ctx context.Context, b backend.Backend) error {
		data, err := backend.ReadAll(ctx, b, oldName, 1<<20)
		return orWrong(err, bytes.Equal(data, content(oldName)))
	}},
	{"read", func(ctx context.Context, b backend.Backend) error {
		p := make([]byte, size)
		n, err := b.ReadAt(ctx, oldName, p, 1)
		if err == io.EOF { //nolint:errorlint // never wrapped
			err = nil
		}
		return orWrong(err, bytes.Equal(p[:n], content(oldName)[1:]))
	}},
	{"list", func(ctx context.Context, b backend.Backend) error {
		found := 0
		err := b.List(ctx, "locks/", func(backend.Info) error { found++; return nil })
		return orWrong(err, found == manyFiles)
	}},
	{"stat", func(ctx context.Context, b backend.Backend) error {
		info, err := b.Stat(ctx, oldName)
		return orWrong(err, info.Size == int64(len(content(oldName))))
	}},
	{"delete", func(ctx context.Context, b backend.Backend) error { return b.Delete(ctx, oldName) }},
}

const manyFiles = 40

var errWrong = errors.New("it succeeded with a wrong result")

func orWrong(err error, right bool) error {
	if err == nil && !right {
		return errWrong
	}
	return err
}

// prepare brings the store into its state before an operation.
func (s *Store) prepare(t *testing.T) {
	t.Helper()
	put := func(name string, data []byte) {
		if err := s.Direct.Put(t.Context(), name, data); err != nil && !errors.Is(err, backend.ErrExist) {
			t.Fatal(err)
		}
	}
	put(oldName, content(oldName))
	put(fmt.Sprintf("locks/%04d", manyFiles-1), nil)
	if _, err := s.Direct.Stat(t.Context(), "locks/0000"); err != nil {
		for i := range manyFiles {
			put(fmt.Sprintf("locks/%04d", i), nil)
		}
	}
	if err := s.Direct.Delete(t.Context(), newName); err != nil && !errors.Is(err, backend.ErrNotExist) {
		t.Fatal(err)
	}
}

func (s *Store) try(t *testing.T, f fault, op operation) {
	s.prepare(t)
	b, err := s.Open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, b)
	// Something was put before, so that the store knows what it finds out with the first put.
	if err := b.Put(t.Context(), "keys/first", nil); err != nil && !errors.Is(err, backend.ErrExist) {
		t.Fatal(err)
	}
	struck := s.strike(f)
	begin := time.Now()
	err = op.run(t.Context(), b)
	if took := time.Since(begin); took > s.Patience {
		t.Errorf("%s took %v (%v)", op.name, took, err)
	}
	<-struck
	switch {
	case err == nil:
	case f.harmless, errors.Is(err, errWrong):
		t.Errorf("%s = %v", op.name, err)
	case !backend.Temporary(err), !errors.Is(err, backend.ErrOutOfReach), errors.Is(err, backend.ErrNotExist), backend.Unreadable(t.Context(), b, err):
		t.Errorf("%s = %v, want a temporary error of a store out of reach", op.name, err)
	}
	s.whole(t)
	s.recovers(t, op, b, err)
}

// strike lets something happen to the line, now or after a while.
func (s *Store) strike(f fault) <-chan struct{} {
	done := make(chan struct{})
	strike := func() {
		defer close(done)
		if f.down {
			s.Proxy.Down()
		}
	}
	if f.later == 0 {
		s.Proxy.Add(f.toxics...)
		strike()
		return done
	}
	s.Proxy.Add(f.toxics...)
	time.AfterFunc(f.later, func() { s.Proxy.Add(f.late...); strike() })
	return done
}

// whole fails unless each file of the store has all of its bytes.
func (s *Store) whole(t *testing.T) {
	t.Helper()
	err := s.Direct.List(t.Context(), "packs/", func(i backend.Info) error {
		data, err := backend.ReadAll(t.Context(), s.Direct, i.Name, 1<<20)
		if want := content(i.Name); errors.Is(err, backend.ErrNotExist) {
			return nil
		} else if err != nil || i.Size != int64(len(want)) || !bytes.Equal(data, want) {
			t.Errorf("%s has %d bytes (listed with %d), want %d, %v", i.Name, len(data), i.Size, len(want), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// recovers fails unless the operation succeeds by being repeated while the line becomes good.
func (s *Store) recovers(t *testing.T, op operation, b backend.Backend, earlier error) {
	t.Helper()
	healed := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { s.Proxy.Heal(); close(healed) })
	defer func() { <-healed }()
	var last error
	again := retry.New(b, retry.Options{First: 20 * time.Millisecond, Longest: 200 * time.Millisecond, Total: s.Patience + 20*time.Second, Report: func(f retry.Failure) { last = f.Err }})
	switch err := op.run(t.Context(), again); {
	case err == nil:
	case op.name == "put" && errors.Is(err, backend.ErrExist), op.name == "delete" && errors.Is(err, backend.ErrNotExist):
		// The attempt before the repetitions was carried out.
	default:
		t.Errorf("%s failed with %v, and then again with %v, last %v", op.name, earlier, err, last)
	}
	s.whole(t)
	_, err := s.Direct.Stat(t.Context(), newName)
	if op.name == "put" && err != nil {
		t.Errorf("after the put: %v", err)
	}
	if _, err = s.Direct.Stat(t.Context(), oldName); (op.name == "delete") != errors.Is(err, backend.ErrNotExist) {
		t.Errorf("after %s: %v", op.name, err)
	}
}

func closeStore(t *testing.T, b backend.Backend) {
	t.Helper()
	if c, ok := b.(io.Closer); ok {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
