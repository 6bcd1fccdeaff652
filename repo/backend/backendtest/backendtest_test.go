package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// broken is a store in memory. A function that is set replaces the method of
// the same name, to break the contract.
type broken struct {
	*memory.Backend
	put    func(ctx context.Context, name string, data []byte) error
	readAt func(ctx context.Context, name string, p []byte, off int64) (int, error)
	stat   func(ctx context.Context, name string) (backend.Info, error)
	list   func(ctx context.Context, prefix string, fn func(backend.Info) error) error
	delete func(ctx context.Context, name string) error
	// listRange is called with the sorted files of the store; nil means that it cannot do it.
	listRange func(all []backend.Info, after, before string, fn func(backend.Info) error) error
}

func (b *broken) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	if b.listRange == nil {
		return errors.ErrUnsupported
	}
	all, err := collect(ctx, b.Backend, "")
	if err != nil {
		return err
	}
	return b.listRange(all, after, before, fn)
}

func (b *broken) Put(ctx context.Context, name string, data []byte) error {
	if b.put != nil {
		return b.put(ctx, name, data)
	}
	return b.Backend.Put(ctx, name, data)
}

func (b *broken) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if b.readAt != nil {
		return b.readAt(ctx, name, p, off)
	}
	return b.Backend.ReadAt(ctx, name, p, off)
}

func (b *broken) Stat(ctx context.Context, name string) (backend.Info, error) {
	if b.stat != nil {
		return b.stat(ctx, name)
	}
	return b.Backend.Stat(ctx, name)
}

func (b *broken) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if b.list != nil {
		return b.list(ctx, prefix, fn)
	}
	return b.Backend.List(ctx, prefix, fn)
}

func (b *broken) Delete(ctx context.Context, name string) error {
	if b.delete != nil {
		return b.delete(ctx, name)
	}
	return b.Backend.Delete(ctx, name)
}

// collect returns what List shows for m, so that a broken List can change it.
func collect(ctx context.Context, m *memory.Backend, prefix string) (infos []backend.Info, err error) {
	err = m.List(ctx, prefix, func(info backend.Info) error { infos = append(infos, info); return nil })
	return infos, err
}

func show(infos []backend.Info, fn func(backend.Info) error) error {
	for _, info := range infos {
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// faults are breaches of the contract, each with the checks that must notice
// it. Other checks may notice it, too.
var faults = []struct {
	name   string
	noted  []string
	damage func(b *broken, m *memory.Backend)
}{
	{"loses the last byte", []string{"PutStoresContent"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			return m.Put(ctx, name, data[:max(0, len(data)-1)])
		}
	}},
	{"keeps the caller's slice", []string{"PutCopiesData"}, func(b *broken, m *memory.Backend) {
		kept := make(map[string][]byte)
		b.put = func(ctx context.Context, name string, data []byte) error {
			kept[name] = data
			return m.Put(ctx, name, data)
		}
		b.readAt = func(_ context.Context, name string, p []byte, off int64) (int, error) {
			return copy(p, kept[name][off:]), nil
		}
	}},
	{"clears the caller's slice", []string{"PutCopiesData"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			defer clear(data)
			return m.Put(ctx, name, data)
		}
	}},
	{"overwrites", []string{"PutNeverOverwrites", "PutBesideFolder", "ConcurrentPutsOfOneName"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			if err := backend.ValidName(name); err != nil {
				return err
			}
			if name == "c/d" { // removes the file c to make a folder of that name
				_ = m.Delete(ctx, "c")
			}
			return m.Set(name, data)
		}
	}},
	{"accepts a Put of the same content", []string{"PutNeverOverwrites"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			old, err := backend.ReadAll(ctx, m, name, 1<<30)
			if err == nil && bytes.Equal(old, data) {
				return nil
			}
			return m.Put(ctx, name, data)
		}
	}},
	{"reports io.EOF with a full read", []string{"ReadAtRanges"}, func(b *broken, m *memory.Backend) {
		b.readAt = func(ctx context.Context, name string, p []byte, off int64) (int, error) {
			n, err := m.ReadAt(ctx, name, p, off)
			if info, errStat := m.Stat(ctx, name); errStat == nil && off+int64(n) == info.Size && err == nil {
				err = io.EOF
			}
			return n, err
		}
	}},
	{"reads short without an error", []string{"ReadAtRanges"}, func(b *broken, m *memory.Backend) {
		b.readAt = func(ctx context.Context, name string, p []byte, off int64) (int, error) {
			n, err := m.ReadAt(ctx, name, p, off)
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}},
	{"treats a negative offset as zero", []string{"ReadAtRanges"}, func(b *broken, m *memory.Backend) {
		b.readAt = func(ctx context.Context, name string, p []byte, off int64) (int, error) {
			return m.ReadAt(ctx, name, p, max(off, 0))
		}
	}},
	{"shows an absent file as empty", []string{"NotExist", "Delete"}, func(b *broken, m *memory.Backend) {
		b.stat = func(ctx context.Context, name string) (backend.Info, error) {
			info, err := m.Stat(ctx, name)
			if errors.Is(err, backend.ErrNotExist) {
				return backend.Info{Name: name}, nil
			}
			return info, err
		}
	}},
	{"has a clock that goes backwards", []string{"Times"}, func(_ *broken, m *memory.Backend) {
		now := time.Now()
		m.SetClock(func() time.Time { now = now.Add(-time.Minute); return now })
	}},
	{"lists the time of the listing", []string{"Times"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			return m.List(ctx, prefix, func(info backend.Info) error {
				info.Modified = info.Modified.Add(time.Hour)
				return fn(info)
			})
		}
	}},
	{"deletes absent files without an error", []string{"NotExist", "Delete"}, func(b *broken, m *memory.Backend) {
		b.delete = func(ctx context.Context, name string) error {
			if err := m.Delete(ctx, name); !errors.Is(err, backend.ErrNotExist) {
				return err
			}
			return nil
		}
	}},
	{"does not delete", []string{"Delete", "ConcurrentUse", "ConcurrentDeletesOfOneName", "ListCallsBack"}, func(b *broken, m *memory.Backend) {
		b.delete = func(ctx context.Context, name string) error { _, err := m.Stat(ctx, name); return err }
	}},
	{"cleans names", []string{"InvalidNames"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			if backend.ValidName(name) != nil {
				name = "cleaned"
			}
			return m.Put(ctx, name, data)
		}
	}},
	{"lists by string prefix only", []string{"InvalidNames"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			if backend.ValidPrefix(prefix) != nil {
				prefix = ""
			}
			return m.List(ctx, prefix, fn)
		}
	}},
	{"ignores the prefix", []string{"ListPrefix"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			if err := backend.ValidPrefix(prefix); err != nil {
				return err
			}
			return m.List(ctx, "", fn)
		}
	}},
	{"lists in the wrong order", []string{"ListSorted", "ListLarge", "ListPrefix"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			infos, err := collect(ctx, m, prefix)
			if err != nil {
				return err
			}
			slices.Reverse(infos)
			return show(infos, fn)
		}
	}},
	{"lists a range with its limit", []string{"ListRange"}, func(b *broken, _ *memory.Backend) {
		b.listRange = func(all []backend.Info, after, before string, fn func(backend.Info) error) error {
			return show(slices.DeleteFunc(all, func(f backend.Info) bool { return f.Name < after || before != "" && f.Name >= before }), fn)
		}
	}},
	{"lists one page", []string{"ListLarge"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			infos, err := collect(ctx, m, prefix)
			if err != nil {
				return err
			}
			return show(infos[:min(len(infos), 1000)], fn)
		}
	}},
	{"wraps the callback's error", []string{"ListEndsWithError"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			err := m.List(ctx, prefix, fn)
			if err != nil {
				err = errors.Join(err)
			}
			return err
		}
	}},
	{"continues after the callback's error", []string{"ListEndsWithError"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			var first error
			err := m.List(ctx, prefix, func(info backend.Info) error {
				if err := fn(info); first == nil {
					first = err
				}
				return nil
			})
			if err != nil {
				return err
			}
			return first
		}
	}},
	{"refuses changes while it lists", []string{"ListCallsBack"}, func(b *broken, m *memory.Backend) {
		listing := false
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			listing = true
			defer func() { listing = false }()
			return m.List(ctx, prefix, fn)
		}
		b.delete = func(ctx context.Context, name string) error {
			if listing {
				return errors.New("busy")
			}
			return m.Delete(ctx, name)
		}
	}},
	{"ignores the context", []string{"Cancelled"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			return m.Put(context.WithoutCancel(ctx), name, data)
		}
	}},
	{"ends a cancelled listing without an error", []string{"CancelledWhileListing"}, func(b *broken, m *memory.Backend) {
		b.list = func(ctx context.Context, prefix string, fn func(backend.Info) error) error {
			err := m.List(ctx, prefix, fn)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}},
	{"lets two Puts of one name succeed", []string{"ConcurrentPutsOfOneName"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			if err := backend.ValidName(name); err != nil {
				return err
			}
			if _, err := m.Stat(ctx, name); err == nil {
				return backend.ErrExist
			}
			time.Sleep(time.Millisecond)
			return m.Set(name, data)
		}
	}},
	{"does not delete while another goroutine does", []string{"ConcurrentDeletesOfOneName"}, func(b *broken, m *memory.Backend) {
		var mu sync.Mutex
		b.delete = func(ctx context.Context, name string) error {
			if !mu.TryLock() {
				return backend.ErrNotExist
			}
			defer mu.Unlock()
			time.Sleep(time.Millisecond)
			if err := m.Delete(ctx, name); err != nil {
				return err
			}
			return errors.New("cannot say whether it worked")
		}
	}},
	{"lists new files late", []string{"ConcurrentUse", "PutStoresContent"}, func(b *broken, m *memory.Backend) {
		old := m.Clone()
		b.put = func(ctx context.Context, name string, data []byte) error {
			if err := m.Put(ctx, name, data); err != nil {
				return err
			}
			return old.Set(name+".later", nil)
		}
		b.list = old.List
	}},
	{"writes in place", []string{"NeverPartial"}, func(b *broken, m *memory.Backend) {
		b.put = func(ctx context.Context, name string, data []byte) error {
			if err := m.Put(ctx, name, data[:len(data)/2]); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
			return m.Set(name, data)
		}
	}},
}

func TestChecksFindFaults(t *testing.T) {
	t.Parallel()
	noticed := make(map[string]bool)
	for _, f := range faults {
		for _, c := range checks() {
			if !slices.Contains(f.noted, c.name) {
				continue
			}
			noticed[c.name] = true
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				m := memory.New()
				b := &broken{Backend: m}
				f.damage(b, m)
				if len(run(t.Context(), c, b)) == 0 {
					t.Error("not noticed")
				}
			})
		}
		if len(f.noted) == 0 {
			t.Errorf("%s: no check named", f.name)
		}
	}
	for _, c := range checks() {
		if !noticed[c.name] {
			t.Errorf("no fault makes the check %s fail", c.name)
		}
		if failures := run(t.Context(), c, memory.New()); len(failures) > 0 {
			t.Errorf("%s fails for a store that keeps the contract: %v", c.name, failures)
		}
	}
}
