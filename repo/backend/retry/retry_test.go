package retry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/retry"
)

var errLost = &backend.TemporaryError{Err: fmt.Errorf("connection reset: %w", backend.ErrOutOfReach)}

// flaky is a store whose operations fail as a test says, before or after they were carried
// out.
type flaky struct {
	*memory.Backend
	calls  atomic.Int32
	before func(ctx context.Context, op, name string) error
	after  func(op, name string) error
}

func (f *flaky) around(ctx context.Context, op, name string, do func() error) error {
	f.calls.Add(1)
	if f.before != nil {
		if err := f.before(ctx, op, name); err != nil {
			return err
		}
	}
	err := do()
	if f.after != nil {
		if lost := f.after(op, name); lost != nil {
			return lost
		}
	}
	return err
}

func (f *flaky) Put(ctx context.Context, name string, data []byte) error {
	return f.around(ctx, "put", name, func() error { return f.Backend.Put(ctx, name, data) })
}

func (f *flaky) ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	err = f.around(ctx, "read", name, func() (err error) { n, err = f.Backend.ReadAt(ctx, name, p, off); return err })
	return n, err
}

func (f *flaky) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = f.around(ctx, "stat", name, func() (err error) { info, err = f.Backend.Stat(ctx, name); return err })
	if err != nil {
		info = backend.Info{}
	}
	return info, err
}

func (f *flaky) Delete(ctx context.Context, name string) error {
	return f.around(ctx, "delete", name, func() error { return f.Backend.Delete(ctx, name) })
}

func (f *flaky) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return f.around(ctx, "list", prefix, func() error {
		return f.Backend.List(ctx, prefix, func(info backend.Info) error {
			if f.before != nil {
				if err := f.before(ctx, "show", info.Name); err != nil {
					return err
				}
			}
			return fn(info)
		})
	})
}

// once fails the first n operations of a kind.
func once(op string, n int) func(string, string) error {
	return func(o, _ string) error {
		if o == op && n > 0 {
			n--
			return errLost
		}
		return nil
	}
}

func withContext(f func(op, name string) error) func(context.Context, string, string) error {
	return func(_ context.Context, op, name string) error { return f(op, name) }
}

func TestContract(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(*testing.T) backend.Backend { return retry.New(memory.New(), retry.Options{Parallel: 3}) })
}

// TestContractOfAFlakyStore checks the contract while a third of all operations fail, before
// or after they were carried out.
func TestContractOfAFlakyStore(t *testing.T) {
	t.Parallel()
	rng := faultpoint.Rand(t)
	var mu sync.Mutex
	one := func(in int) bool { mu.Lock(); defer mu.Unlock(); return rng.IntN(in) == 0 }
	chance := func() bool { return one(6) }
	backendtest.RunSmall(t, func(*testing.T) backend.Backend {
		f := &flaky{Backend: memory.New()}
		exists := func(name string) bool {
			_, err := f.Backend.Stat(context.Background(), name)
			return err == nil
		}
		f.before = func(ctx context.Context, op, name string) error {
			if op == "show" && !one(500) {
				return nil // a listing begins anew, so a long one would hardly ever end
			}
			// A Put of an existing file may find it equal, and a Delete of a missing one
			// may find it gone. Then they return nil, which the suite does not expect.
			if ctx.Err() == nil && (op != "put" || !exists(name)) && (op != "delete" || exists(name)) && chance() {
				return errLost
			}
			return nil
		}
		f.after = func(op, name string) error {
			if (op == "put" && exists(name) && !strings.HasPrefix(name, "packs/ab/one") || op == "stat") && chance() {
				return errLost
			}
			return nil
		}
		return retry.New(f, retry.Options{First: time.Microsecond, Longest: time.Microsecond, Total: time.Hour})
	})
}

// TestWaits checks how long a failure lasts, and what is reported.
func TestWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{Backend: memory.New(), before: withContext(once("stat", 1<<30))}
		var reports []retry.Failure
		b := retry.New(f, retry.Options{Random: func() float64 { return 0 }, Report: func(r retry.Failure) { reports = append(reports, r) }})
		begin := time.Now()
		_, err := b.Stat(t.Context(), "config")
		if !backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach) || !strings.Contains(err.Error(), "gave up after 20 attempts in 14m3s") {
			t.Errorf("Stat = %v", err)
		}
		if took := time.Since(begin); took > 15*time.Minute || took < 14*time.Minute {
			t.Errorf("gave up after %s", took)
		}
		var waits []time.Duration
		for i, r := range reports {
			if r.Op != "stat" || r.Name != "config" || r.Attempt != i+1 || !backend.Temporary(r.Err) {
				t.Errorf("report %d: %+v", i, r)
			}
			waits = append(waits, r.Wait/time.Second)
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}; !slices.Equal(waits[:len(want)], want) {
			t.Errorf("waits: %d", waits)
		}
	})
}

// TestJitter checks that waits are random within a half.
func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		f := &flaky{Backend: memory.New(), before: withContext(once("stat", 8))}
		b := retry.New(f, retry.Options{Longest: time.Second, Report: func(r retry.Failure) {
			seen[r.Wait] = true
			if r.Wait < time.Second/2 || r.Wait > time.Second {
				t.Errorf("wait %s", r.Wait)
			}
		}})
		b.Stat(t.Context(), "config")
		if len(seen) < 4 {
			t.Errorf("waits %v", seen)
		}
	})
}

// TestStoreAsksToWait waits as long as the store asks.
func TestStoreAsksToWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fail := true
		f := &flaky{Backend: memory.New(), before: func(context.Context, string, string) error {
			defer func() { fail = false }()
			if fail {
				return fmt.Errorf("put: %w", &backend.TemporaryError{Err: errors.New("slow down"), After: 2 * time.Minute})
			}
			return nil
		}}
		begin := time.Now()
		if err := retry.New(f, retry.Options{}).Put(t.Context(), "config", nil); err != nil || time.Since(begin) != 2*time.Minute {
			t.Errorf("Put = %v after %s", err, time.Since(begin))
		}
	})
}

// TestOtherErrors are not repeated.
func TestOtherErrors(t *testing.T) {
	t.Parallel()
	for _, want := range []error{backend.ErrNoSpace, backend.ErrOutOfReach, errors.New("wrong key"), context.DeadlineExceeded} {
		f := &flaky{Backend: memory.New(), before: func(context.Context, string, string) error { return want }}
		if err := retry.New(f, retry.Options{}).Put(t.Context(), "config", nil); !errors.Is(err, want) || f.calls.Load() != 1 {
			t.Errorf("Put = %v after %d attempts, want %v", err, f.calls.Load(), want)
		}
	}
}

// TestContextEndsWait cancels while a wait lasts.
func TestContextEndsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{Backend: memory.New(), before: func(context.Context, string, string) error { return errLost }}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		for op, do := range map[string]func() error{
			"put":  func() error { return retry.New(f, retry.Options{}).Put(ctx, "config", nil) },
			"list": func() error { return retry.New(f, retry.Options{}).List(ctx, "", nil) },
		} {
			if err := do(); !errors.Is(err, context.DeadlineExceeded) || backend.Temporary(err) {
				t.Errorf("%s = %v", op, err)
			}
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// TestRepeatedPut loses the answer to a Put, so that the next attempt finds a file.
func TestRepeatedPut(t *testing.T) {
	t.Parallel()
	hashed := "packs/ab/" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		about, name string
		found       string // instead of the file that was put
		err         error
	}{
		{"own file", "config", "", nil},
		{"own file named by a hash", hashed, "", nil},
		{"another size", "config", "longer content", backend.ErrExist},
		{"another size of a hash", hashed, "longer content", backend.ErrExist},
		{"other bytes", "config", "CONTENT", backend.ErrExist},
	} {
		f := &flaky{Backend: memory.New(), after: once("put", 1)}
		reports := 0
		b := retry.New(f, retry.Options{First: time.Microsecond, Report: func(retry.Failure) {
			if reports++; tt.found != "" {
				f.Backend.Set(tt.name, []byte(tt.found))
			}
		}})
		if err := b.Put(t.Context(), tt.name, []byte("content")); !errors.Is(err, tt.err) || reports != 1 {
			t.Errorf("%s: Put = %v after %d reports", tt.about, err, reports)
		}
	}
	// Without a lost answer, an existing file is an error, even if it is equal.
	f := &flaky{Backend: memory.New()}
	f.Backend.Set("config", []byte("content"))
	if err := retry.New(f, retry.Options{}).Put(t.Context(), "config", []byte("content")); !errors.Is(err, backend.ErrExist) || f.calls.Load() != 1 {
		t.Errorf("Put of an existing file = %v", err)
	}
	// Comparing fails, too, and then succeeds.
	f = &flaky{Backend: memory.New(), after: once("put", 1), before: withContext(once("read", 2))}
	if err := retry.New(f, retry.Options{First: time.Microsecond}).Put(t.Context(), "config", []byte("content")); err != nil {
		t.Errorf("Put = %v", err)
	}
	// A folder has the name, so Stat finds no file.
	f = &flaky{Backend: memory.New(), before: withContext(once("put", 1))}
	f.Backend.Set("config/x", nil)
	if err := retry.New(f, retry.Options{First: time.Microsecond}).Put(t.Context(), "config", nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put of a folder's name = %v", err)
	}
	// Somebody removes the file between the attempts.
	f = &flaky{Backend: memory.New(), after: once("put", 1)}
	removed := false
	f.before = func(_ context.Context, op, name string) error {
		if op == "stat" && !removed {
			removed = true
			f.Backend.Delete(context.Background(), name)
		}
		return nil
	}
	if err := retry.New(f, retry.Options{First: time.Microsecond}).Put(t.Context(), "config", []byte("content")); err != nil {
		t.Errorf("Put = %v", err)
	}
	if got, err := backend.ReadAll(t.Context(), f.Backend, "config", 10); err != nil || !bytes.Equal(got, []byte("content")) {
		t.Errorf("the file has %q, %v", got, err)
	}
}

// TestRepeatedDelete loses the answer to a Delete.
func TestRepeatedDelete(t *testing.T) {
	t.Parallel()
	f := &flaky{Backend: memory.New(), after: once("delete", 1)}
	f.Backend.Set("config", nil)
	b := retry.New(f, retry.Options{First: time.Microsecond})
	if err := b.Delete(t.Context(), "config"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if err := b.Delete(t.Context(), "config"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Delete of a missing file = %v", err)
	}
}

// TestRepeatedList fails after every few files. Each is shown once, and the time begins anew
// when the listing goes on.
func TestRepeatedList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{Backend: memory.New()}
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprintf("keys/%02d", i))
			f.Backend.Set(want[i], nil)
		}
		next := 5
		f.before = func(_ context.Context, op, name string) error {
			if op == "show" && next < len(want) && name == want[next] {
				next += 4
				return errLost
			}
			return nil
		}
		var got []string
		failures := 0
		b := retry.New(f, retry.Options{Report: func(r retry.Failure) {
			if failures++; r.Attempt != 1 {
				t.Errorf("attempt %d after %q", r.Attempt, got)
			}
		}})
		err := b.List(t.Context(), "keys/", func(info backend.Info) error { got = append(got, info.Name); return nil })
		if err != nil || !slices.Equal(got, want) || failures != 24 {
			t.Errorf("List shows %d files of 100, %v, after %d failures", len(got), err, failures)
		}
		// The error of a callback ends the listing, whatever it is.
		f.before = nil
		calls := 0
		err = b.List(t.Context(), "", func(backend.Info) error { calls++; return errLost })
		if err != errLost || calls != 1 { //nolint:errorlint // unchanged
			t.Errorf("List = %v after %d calls", err, calls)
		}
	})
}

// TestWatchdog ends attempts that hang, but not the time of a callback.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := map[string]bool{"stat": true, "put": true, "show": true}
		f := &flaky{Backend: memory.New()}
		f.Backend.Set("a", nil)
		f.Backend.Set("b", nil)
		f.before = func(ctx context.Context, op, _ string) error {
			if hang[op] {
				delete(hang, op)
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		var failures []error
		b := retry.New(f, retry.Options{Report: func(r retry.Failure) { failures = append(failures, r.Err) }})
		begin := time.Now()
		if _, err := b.Stat(t.Context(), "a"); err != nil || time.Since(begin) > 6*time.Minute {
			t.Errorf("Stat = %v after %s", err, time.Since(begin))
		}
		begin = time.Now()
		if err := b.Put(t.Context(), "c", make([]byte, 4<<20)); err != nil || time.Since(begin) < 17*time.Minute || time.Since(begin) > 30*time.Minute {
			t.Errorf("Put of 4 MiB = %v after %s", err, time.Since(begin))
		}
		begin = time.Now()
		n := 0
		if err := b.List(t.Context(), "", func(backend.Info) error { n++; time.Sleep(time.Hour); return nil }); err != nil || n != 3 || time.Since(begin) > 3*time.Hour+6*time.Minute {
			t.Errorf("List = %v after %s and %d files", err, time.Since(begin), n)
		}
		if len(failures) != 3 || !errors.Is(failures[0], backend.ErrOutOfReach) || errors.Is(failures[0], context.DeadlineExceeded) {
			t.Errorf("failures: %v", failures)
		}
	})
}

// TestLimitedLine: operations that are slow because of a limit are not overdue, and one that
// hangs still is.
func TestLimitedLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 100 // bytes per second, for one of several operations
		f := &flaky{Backend: memory.New()}
		f.before = func(ctx context.Context, op, _ string) error {
			bytes := map[string]int{"put": 4 << 20, "show": 300_000, "stat": 50_000}[op]
			select {
			case <-time.After(time.Duration(bytes/rate) * time.Second * 3 / 2): // the share may be smaller
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		b := retry.New(f, retry.Options{Slowest: rate, Report: func(r retry.Failure) { t.Error(r) }})
		if err := b.Put(t.Context(), "a", make([]byte, 4<<20)); err != nil {
			t.Error(err)
		}
		if _, err := b.Stat(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if err := b.List(t.Context(), "", func(backend.Info) error { return nil }); err != nil {
			t.Error(err)
		}
		f.before = func(ctx context.Context, _, _ string) error { <-ctx.Done(); return ctx.Err() }
		begin := time.Now()
		b = retry.New(f, retry.Options{Slowest: rate, Total: time.Nanosecond})
		if _, err := b.Stat(t.Context(), "a"); !errors.Is(err, backend.ErrOutOfReach) || time.Since(begin) > 2*time.Hour {
			t.Errorf("Stat = %v after %s", err, time.Since(begin))
		}
	})
}

// TestParallel bounds the operations at a time. Those that wait lose no time.
func TestParallel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		f := &flaky{Backend: memory.New(), before: func(ctx context.Context, _, _ string) error {
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(4 * time.Minute)
			return ctx.Err()
		}}
		b := retry.New(f, retry.Options{Parallel: 2, Report: func(r retry.Failure) { t.Errorf("%v", r.Err) }})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := b.Put(t.Context(), fmt.Sprintf("keys/%d", i), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 2 {
			t.Errorf("%d operations at a time", most.Load())
		}
	})
}

// TestOptionalMethods are those of the wrapped store.
func TestOptionalMethods(t *testing.T) {
	t.Parallel()
	inMemory := retry.New(memory.New(), retry.Options{})
	if _, ok := inMemory.(backend.Folders); ok {
		t.Error("a store without folders has some")
	}
	if _, err := inMemory.(backend.Freer).Free(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Free = %v", err)
	}
	inMemory.(backend.NoFsyncer).AllowNoFsync()
	l, err := local.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := retry.New(l, retry.Options{})
	f, ok := b.(backend.Folders)
	if !ok {
		t.Fatal("a folder has no folders")
	}
	if err := f.MakeFolder(t.Context(), "packs/"); err != nil {
		t.Error(err)
	}
	if has, err := f.HasFolder(t.Context(), "packs/"); !has || err != nil {
		t.Errorf("HasFolder = %v, %v", has, err)
	}
	if aside, err := f.MoveAside(t.Context(), "packs"); aside == "" || err != nil {
		t.Errorf("MoveAside = %q, %v", aside, err)
	}
	if free, err := b.(backend.Freer).Free(t.Context()); free <= 0 || err != nil {
		t.Errorf("Free = %d, %v", free, err)
	}
	b.(backend.NoFsyncer).AllowNoFsync()
}
