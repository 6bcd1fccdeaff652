// Package retry wraps a backend and repeats operations that failed for a reason that may
// pass: a lost connection, a server that is overloaded or restarts.
//
// # What it repeats
//
// It repeats an operation if its error is a [backend.TemporaryError], and no other one:
// wrong keys, a full store or a missing file do not become right by asking again. It waits
// between attempts, about twice as long each time. It gives up after [Options.Total]. The
// error is then that of the last attempt.
//
// # Lost answers
//
// An operation that failed may have been carried out: only its answer was lost. A Put that
// is repeated can find its own file. So if the store then says that the file exists, Put
// compares the size, and also the bytes unless the name is a hash. It succeeds if they are
// equal. A Delete that is repeated succeeds if the file is gone. A List that is repeated
// goes on after the last file that it has shown.
//
// # Watchdog
//
// Each attempt has a time limit, which grows with the number of bytes. It is generous,
// since a slow line that several requests share is no failure. It is the last resort if a
// backend does not notice by itself that nothing moves.
//
// # What it never does
//
// It never hides an error that does not pass, changes no names or bytes, and caches
// nothing.
package retry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// Options are the settings of a backend that repeats. The zero value has the defaults.
type Options struct {
	// Total is how long an operation is repeated, from its first failure. 0 means 15
	// minutes, as in restic: a router, a computer or a service of a provider restarts in
	// that time. Whoever waits for a backup should learn of a longer failure, and a
	// scheduled one is tried again later anyway. The time that an operation takes before
	// its first failure does not count: a large file on a slow line gets the same chance.
	Total time.Duration
	// First is the longest wait before the second attempt; 0 means a second. Each wait is
	// up to twice as long as the one before, and at most Longest; 0 means a minute. A
	// random part of up to a half is left out, so that processes that failed together
	// do not come back together. If the store asks for a longer wait, it gets it.
	First, Longest time.Duration
	// Parallel is the maximum number of operations at a time, without listings; 0 means no
	// limit. It should be the number of connections of the store: an operation that waits
	// here for its turn loses no time of its limit.
	Parallel int
	// Slowest is how many bytes an operation moves in a second if it has only its share of
	// a limit that this computer keeps; 0 without a limit. Attempts may then take longer.
	Slowest int64
	// Report is told before each wait. Several goroutines may call it at the same time.
	Report func(Failure)
	// Random returns a number from 0 to 1, not including 1; nil means one of package
	// math/rand.
	Random func() float64
}

// Failure is an attempt that failed and will be repeated.
type Failure struct {
	Op, Name string        // such as "put", "packs/ab/cd"
	Err      error         // why it failed
	Attempt  int           // 1 for the first
	Wait     time.Duration // until the next attempt
}

const (
	defaultTotal   = 15 * time.Minute
	defaultFirst   = time.Second
	defaultLongest = time.Minute

	// baseLimit and slowest make the time limit of an attempt. The rate is that of one of
	// several uploads that share 256 kbit/s, with much room: 64 MiB may take 4.5 hours.
	baseLimit = 5 * time.Minute
	slowest   = 4 << 10 // bytes per second
	// page is more than a page of a listing has. A limit makes it slow.
	page = 512 << 10
	// assumed is the most that a file is taken to have if its size is not known.
	assumed = 64 << 20
)

// retrier is a Backend that repeats the operations of another one.
type retrier struct {
	inner backend.Backend
	opts  Options
	slots chan struct{} // nil for no limit
}

// base returns the time limit of an attempt that moves few bytes.
func (r *retrier) base() time.Duration {
	if r.opts.Slowest <= 0 {
		return baseLimit
	}
	return baseLimit + time.Duration(page/r.opts.Slowest)*time.Second
}

// limit returns the time limit of an attempt that moves size bytes.
func (r *retrier) limit(size int64) time.Duration {
	rate := int64(slowest)
	if r.opts.Slowest > 0 {
		rate = min(rate, max(1, r.opts.Slowest/2)) // the share of an operation may be smaller for a while
	}
	return r.base() + time.Duration(size/rate)*time.Second
}

var (
	_ backend.Backend     = (*retrier)(nil)
	_ backend.AppendOnly  = (*retrier)(nil)
	_ backend.FileReader  = (*retrier)(nil)
	_ backend.Freer       = (*retrier)(nil)
	_ backend.NoFsyncer   = (*retrier)(nil)
	_ backend.RangeLister = (*retrier)(nil)
	_ backend.Folders     = (*folders)(nil)
)

// New returns a backend that repeats the operations of b. It has the optional methods of
// package backend. It is a [backend.Folders] only if b is.
func New(b backend.Backend, opts Options) backend.Backend {
	opts.Total = cmp.Or(opts.Total, defaultTotal)
	opts.First = cmp.Or(opts.First, defaultFirst)
	opts.Longest = max(cmp.Or(opts.Longest, defaultLongest), opts.First)
	if opts.Random == nil {
		opts.Random = rand.Float64
	}
	r := &retrier{inner: b, opts: opts}
	if opts.Parallel > 0 {
		r.slots = make(chan struct{}, opts.Parallel)
	}
	if f, ok := b.(backend.Folders); ok {
		return &folders{r, f}
	}
	return r
}

// Put implements [backend.Backend].
func (r *retrier) Put(ctx context.Context, name string, data []byte) error {
	uncertain := false // whether an earlier attempt may have put the file
	absent := false    // whether the store has said that there is no file
	return r.repeat(ctx, "put", name, int64(len(data)), func(ctx context.Context) error {
		exists := r.inner.Put(ctx, name, data)
		if !uncertain || !errors.Is(exists, backend.ErrExist) {
			uncertain = true // if the error is not temporary, there is no other attempt
			return exists
		}
		err := r.recognise(ctx, name, data, exists)
		if !errors.Is(err, backend.ErrNotExist) {
			return err
		}
		if absent {
			return exists // a folder has the name
		}
		// Somebody may have removed the file since. Put it again.
		absent = true
		return &backend.TemporaryError{Err: err}
	})
}

// recognise returns nil if an existing file is the one that was put, exists if it is another
// one, and ErrNotExist if there is none.
func (r *retrier) recognise(ctx context.Context, name string, data []byte, exists error) error {
	info, err := r.inner.Stat(ctx, name)
	switch {
	case err != nil:
		return err
	case info.Size != int64(len(data)):
		return exists
	case backend.IsHashed(name):
		return nil
	}
	stored, err := backend.ReadAll(ctx, r.inner, name, info.Size)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(stored, data):
		return exists
	}
	return nil
}

// ReadAt implements [backend.Backend].
func (r *retrier) ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	err = r.repeat(ctx, "read", name, int64(len(p)), func(ctx context.Context) (err error) {
		n, err = r.inner.ReadAt(ctx, name, p, off)
		return err
	})
	return n, err
}

// ReadFile implements [backend.FileReader].
func (r *retrier) ReadFile(ctx context.Context, name string, limit int64) (data []byte, err error) {
	err = r.repeat(ctx, "read", name, min(limit, assumed), func(ctx context.Context) (err error) {
		data, err = backend.ReadAll(ctx, r.inner, name, limit)
		return err
	})
	return data, err
}

// Stat implements [backend.Backend].
func (r *retrier) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = r.repeat(ctx, "stat", name, 0, func(ctx context.Context) (err error) {
		info, err = r.inner.Stat(ctx, name)
		return err
	})
	return info, err
}

// Delete implements [backend.Backend].
func (r *retrier) Delete(ctx context.Context, name string) error {
	uncertain := false // whether an earlier attempt may have deleted the file
	return r.repeat(ctx, "delete", name, 0, func(ctx context.Context) error {
		err := r.inner.Delete(ctx, name)
		if uncertain && errors.Is(err, backend.ErrNotExist) {
			return nil
		}
		uncertain = true
		return err
	})
}

// Free implements [backend.Freer].
func (r *retrier) Free(ctx context.Context) (free int64, err error) {
	f, ok := r.inner.(backend.Freer)
	if !ok {
		return 0, fmt.Errorf("free space of the store: %w", errors.ErrUnsupported)
	}
	err = r.repeat(ctx, "free space", "", 0, func(ctx context.Context) (err error) {
		free, err = f.Free(ctx)
		return err
	})
	return free, err
}

// AllowNoFsync implements [backend.NoFsyncer].
func (r *retrier) AllowNoFsync() {
	if f, ok := r.inner.(backend.NoFsyncer); ok {
		f.AllowNoFsync()
	}
}

// AppendOnly implements [backend.AppendOnly].
func (r *retrier) AppendOnly() bool { return backend.IsAppendOnly(r.inner) }

// folders is a retrier of a backend with folders.
type folders struct {
	*retrier
	inner backend.Folders
}

// MakeFolder implements [backend.Folders].
func (f *folders) MakeFolder(ctx context.Context, dir string) error {
	return f.repeat(ctx, "make folder", dir, 0, func(ctx context.Context) error { return f.inner.MakeFolder(ctx, dir) })
}

// HasFolder implements [backend.Folders].
func (f *folders) HasFolder(ctx context.Context, dir string) (has bool, err error) {
	err = f.repeat(ctx, "stat", dir, 0, func(ctx context.Context) (err error) {
		has, err = f.inner.HasFolder(ctx, dir)
		return err
	})
	return has, err
}

// MoveAside implements [backend.Folders]. It is not repeated: a second attempt would find
// nothing if only the answer to the first one was lost, and could not tell the new name.
func (f *folders) MoveAside(ctx context.Context, name string) (string, error) {
	return f.inner.MoveAside(ctx, name)
}
