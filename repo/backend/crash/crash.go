// Package crash is a backend whose process dies at a chosen operation, for tests.
//
// It simulates a power cut at the level of the backend contract: operations that
// returned nil are durable, and the operation that was running may or may not have an
// effect. It never changes the result of an operation before the crash. To test that a
// writer survives a power cut at any point, count the changes (Puts and Deletes) of an
// undisturbed run. Then repeat the run with a crash at one of these changes each time:
//
//	for _, n := range faultpoint.Choose(t, changes, 20) {
//		store := crash.New(memory.New(), crash.Plan{At: n + 1, Seed: seed})
//		err := run(store)
//		after := store.Reboot()
//		... check err and after; print store.Outcome() on failure ...
//	}
//
// Several Backends may share one memory store, like processes that share a
// repository. One of them can die while the others continue.
package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// ErrCrashed is the error of the operation during which the process dies, and of all
// later operations.
var ErrCrashed = errors.New("simulated crash")

// Plan says when and how the process dies.
type Plan struct {
	// At is the number of the operation during which the process dies, from 1.
	// Only Put and Delete count: a crash between two of them has the same effect
	// as a crash in the next one. 0 means never.
	At int
	// Seed chooses the outcome of the operation. The same seed has the same
	// outcome. Every error text contains it.
	Seed uint64
	// Torn allows a Put to leave a damaged file: empty, cut short, or with zeros at
	// its end. This breaks the contract, like a disk that does not really flush.
	Torn bool
}

// Backend is one process's view of a store, until that process dies.
type Backend struct {
	store *memory.Backend
	plan  Plan

	mu   sync.Mutex
	n    int
	dead bool
	what string // outcome of the operation in which the process died
}

// New returns a process's view of store. Until the crash it passes all operations on to
// store.
func New(store *memory.Backend, plan Plan) *Backend {
	return &Backend{store: store, plan: plan}
}

// Changes returns the number of Puts and Deletes, including the one in which the
// process died.
func (b *Backend) Changes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// Crashed reports whether the process has died.
func (b *Backend) Crashed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dead
}

// Outcome describes the operation in which the process died, its effect and the
// seed; "" if the process has not died.
func (b *Backend) Outcome() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.what
}

// Reboot kills the process, if it is not dead, and returns a copy of the store as it
// is after a restart.
func (b *Backend) Reboot() *memory.Backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dead {
		b.dead = true
		b.what = fmt.Sprintf("killed after %d changes (seed %d)", b.n, b.plan.Seed)
	}
	return b.store.Clone()
}

func (b *Backend) crashed(op, name string) error {
	return fmt.Errorf("%s %s: %s: %w", op, name, b.what, ErrCrashed)
}

// change runs a Put or Delete. normal runs the operation completely. If the process
// dies in the operation, change calls dying instead, which applies an effect and
// describes it. change holds the lock, so that every change is either before the crash
// or after it.
func (b *Backend) change(ctx context.Context, op, name string, normal func() error, dying func(*rand.Rand) (string, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return b.crashed(op, name)
	}
	if err := backend.ValidName(name); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, name, err)
	}
	b.n++
	if b.n != b.plan.At {
		return normal()
	}
	rng := rand.New(rand.NewPCG(b.plan.Seed, uint64(b.plan.At)))
	left, err := dying(rng)
	if err != nil {
		left = fmt.Sprintf("which failed: %v", err)
	}
	b.dead = true
	b.what = fmt.Sprintf("died at change %d, %s %s, %s (seed %d)", b.n, op, name, left, b.plan.Seed)
	return b.crashed(op, name)
}

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	normal := func() error { return b.store.Put(ctx, name, data) }
	return b.change(ctx, "put", name, normal, func(rng *rand.Rand) (string, error) {
		outcomes := 2
		if b.plan.Torn {
			outcomes = 5
		}
		switch rng.IntN(outcomes) {
		case 0:
			return "leaving nothing", nil
		case 1:
			return "leaving it complete", normal()
		case 2:
			return "leaving it empty", b.store.Put(ctx, name, nil)
		case 3:
			short := data[:rng.IntN(len(data)+1)]
			return fmt.Sprintf("leaving %d of %d bytes", len(short), len(data)), b.store.Put(ctx, name, short)
		default:
			lost := bytes.Clone(data)
			from := rng.IntN(len(data) + 1)
			clear(lost[from:])
			return fmt.Sprintf("leaving zeros from byte %d of %d", from, len(data)), b.store.Put(ctx, name, lost)
		}
	})
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	normal := func() error { return b.store.Delete(ctx, name) }
	return b.change(ctx, "delete", name, normal, func(rng *rand.Rand) (string, error) {
		if rng.IntN(2) == 0 {
			return "leaving it there", nil
		}
		return "leaving it deleted", normal()
	})
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := b.alive("read", name); err != nil {
		return 0, err
	}
	return b.store.ReadAt(ctx, name, p, off)
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := b.alive("stat", name); err != nil {
		return backend.Info{}, err
	}
	return b.store.Stat(ctx, name)
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := b.alive("list", prefix); err != nil {
		return err
	}
	return b.store.List(ctx, prefix, func(info backend.Info) error {
		if err := b.alive("list", prefix); err != nil {
			return err
		}
		return fn(info)
	})
}

func (b *Backend) alive(op, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return b.crashed(op, name)
	}
	return nil
}

var _ backend.Backend = (*Backend)(nil)
