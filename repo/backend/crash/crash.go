// Package crash is a store whose process dies at a chosen operation, and what
// is found after the restart.
//
// It plays a power cut at the level of the backend contract: what had returned
// nil is there, what was under way is there or not. A test that wants to know
// whether a writer is safe against a power cut at any point loops:
//
//	for at := 1; ; at++ {
//		store := crash.New(memory.New(), crash.Plan{At: at, Seed: seed})
//		err := run(store)
//		if !store.Crashed() {
//			break // the run made fewer changes, so it was not disturbed
//		}
//		after := store.Reboot()
//		... judge err and after; name the seed when it fails ...
//	}
//
// Several Backends may share one memory store, as several processes share a
// repository; one of them can then die while the others go on.
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

// ErrCrashed is the kind of error of the operation at which the process dies,
// and of every one after it.
var ErrCrashed = errors.New("simulated crash")

// Plan says when and how the process dies.
type Plan struct {
	// At is the operation that is under way when the process dies, counted
	// from 1. Only Put and Delete count: a death between two of them leaves
	// nothing behind that a death within the next one does not. 0 is never.
	At int
	// Seed chooses what becomes of the operation under way. The same seed
	// gives the same outcome; every error text holds it.
	Seed uint64
	// Torn lets a Put that was under way also leave a damaged file: empty,
	// cut short, or of the full size with its end lost. That is what a store
	// does that breaks the contract, such as a disk that lies about flushing.
	Torn bool
}

// Backend is one process's view of a store, until that process dies.
type Backend struct {
	store *memory.Backend
	plan  Plan

	mu   sync.Mutex
	n    int
	dead bool
	what string // how the operation under way ended
}

// New returns a process's view of store. Until the crash it is the store.
func New(store *memory.Backend, plan Plan) *Backend {
	return &Backend{store: store, plan: plan}
}

// Changes returns how many Puts and Deletes there were, including the one at
// which the process died.
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

// Outcome says in words what became of the operation at which the process
// died, and by which seed; "" if it has not died.
func (b *Backend) Outcome() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.what
}

// Reboot returns a copy of the store as it is found after the restart. The
// process that held b is dead from then on, even if it was not before.
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

// change runs one Put or Delete: normal carries it out, under decides what the
// death leaves of it and says so. It holds the lock so that every change is
// either before the crash or after it.
func (b *Backend) change(ctx context.Context, op, name string, normal func() error, under func(*rand.Rand) (string, error)) error {
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
	left, err := under(rng)
	if err != nil {
		left = fmt.Sprintf("refused anyhow: %v", err)
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
