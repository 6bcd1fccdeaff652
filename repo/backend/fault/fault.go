// Package fault wraps a backend and makes it fail as a test plans. It simulates
// operations that do nothing and return an error, operations that succeed but return an
// error, a full disk, and short or damaged reads. Without a plan it changes nothing.
//
// To test a failure at any point, count the operations of an undisturbed run. Then
// repeat the run with a failure of one of these operations each time:
//
//	for _, n := range faultpoint.Choose(t, operations, 20) {
//		store := fault.New(memory.New(), fault.Once(n+1, fault.ErrInjected))
//		err := run(store)
//		... check err and the store ...
//	}
package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
)

// ErrInjected is an error that plans can return from operations.
var ErrInjected = errors.New("injected fault")

// Op is a kind of operation, a method of backend.Backend.
type Op int

// The operations.
const (
	Put Op = iota
	ReadAt
	Stat
	List
	Delete
	ops // number of operations
)

func (o Op) String() string {
	names := [ops]string{"put", "read", "stat", "list", "delete"}
	if o < 0 || o >= ops {
		return fmt.Sprintf("op(%d)", int(o))
	}
	return names[o]
}

// Call describes an operation to a plan.
type Call struct {
	Op   Op
	Name string // the file's name, or the prefix of a List
	Size int    // bytes to put or to read; 0 otherwise
	N    int    // number of the operation on this Backend, from 1
	OfOp int    // number among the operations of this kind, from 1
}

// Action is what happens to an operation. The zero Action changes nothing.
type Action struct {
	// Before, if not nil, is returned instead of doing the operation.
	Before error
	// After, if not nil, is returned after the store has done the operation. If the
	// store itself fails, its error is returned instead.
	After error
	// Read, if not nil, changes the result of a ReadAt at offset off: it may change
	// p[:n], and returns the results for the caller.
	Read func(p []byte, off int64, n int, err error) (int, error)
}

func (a Action) isZero() bool { return a.Before == nil && a.After == nil && a.Read == nil }

// Plan decides what happens to each operation. It is called in the order of the
// operations, by one goroutine at a time.
type Plan func(Call) Action

// Backend passes operations on to another Backend, changed by its plan.
type Backend struct {
	inner backend.Backend

	mu   sync.Mutex
	plan Plan
	n    int
	ofOp [ops]int
}

// New wraps inner. A nil plan changes nothing. All plans are called for each
// operation, and the first Action that is not zero counts.
func New(inner backend.Backend, plans ...Plan) *Backend {
	return &Backend{inner: inner, plan: merge(plans)}
}

// SetPlan replaces the plan and sets all counts to zero.
func (b *Backend) SetPlan(plans ...Plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan, b.n, b.ofOp = merge(plans), 0, [ops]int{}
}

// Count returns the number of operations of the given kinds, or of all kinds if none
// is given. It includes refused operations.
func (b *Backend) Count(kinds ...Op) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(kinds) == 0 {
		return b.n
	}
	sum := 0
	for _, op := range kinds {
		sum += b.ofOp[op]
	}
	return sum
}

func (b *Backend) next(op Op, name string, size int) Action {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	b.ofOp[op]++
	return b.plan(Call{Op: op, Name: name, Size: size, N: b.n, OfOp: b.ofOp[op]})
}

// apply applies the plan to an operation that returns only an error.
func (b *Backend) apply(op Op, name string, size int, call func() error) error {
	action := b.next(op, name, size)
	if action.Before != nil {
		return fmt.Errorf("%v %s: %w", op, name, action.Before)
	}
	if err := call(); err != nil {
		return err
	}
	if action.After != nil {
		return fmt.Errorf("%v %s: %w", op, name, action.After)
	}
	return nil
}

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	return b.apply(Put, name, len(data), func() error { return b.inner.Put(ctx, name, data) })
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	return b.apply(Delete, name, 0, func() error { return b.inner.Delete(ctx, name) })
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return b.apply(List, prefix, 0, func() error { return b.inner.List(ctx, prefix, fn) })
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = b.apply(Stat, name, 0, func() error { info, err = b.inner.Stat(ctx, name); return err })
	if err != nil {
		return backend.Info{}, err
	}
	return info, nil
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	action := b.next(ReadAt, name, len(p))
	if action.Before != nil {
		return 0, fmt.Errorf("%v %s: %w", ReadAt, name, action.Before)
	}
	n, err := b.inner.ReadAt(ctx, name, p, off)
	if action.Read != nil {
		n, err = action.Read(p, off, n, err)
	}
	if action.After != nil && (err == nil || errors.Is(err, io.EOF)) {
		return 0, fmt.Errorf("%v %s: %w", ReadAt, name, action.After)
	}
	return n, err
}

var _ backend.Backend = (*Backend)(nil)
