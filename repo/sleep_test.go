package repo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// everySleep lets a process fall asleep at its operations: at every second one,
// at every one with SNAP_TEST_HUGE. Others take
// it for dead meanwhile, remove its lock and work. Then it goes on. It may fail
// with ErrLockLost alone, and judge wants nothing to be lost. It returns how
// often it failed.
func everySleep(t *testing.T, base *memory.Backend, run func(backend.Backend) error, others func(*memory.Backend) error, judge func(be *memory.Backend, err error) error) (lost int) {
	t.Helper()
	ctx := context.Background()
	stride := 2
	if testing.Short() {
		stride = 7
	} else if os.Getenv("SNAP_TEST_HUGE") != "" {
		stride = 1
	}
	for n := 2; ; n += stride {
		be := base.Clone()
		var failed error
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n {
				r, err := Open(ctx, be, testSecret, tinyOptions(4))
				if err == nil {
					_, err = r.RemoveLocks(ctx, func(LockInfo) bool { return true })
				}
				if err == nil {
					err = others(be)
				}
				failed = err
			}
			return fault.Action{}
		})
		err := run(store)
		if store.Count() < n {
			if err != nil || n < 10 {
				t.Fatalf("the undisturbed run had %d operations: %v", n-1, err)
			}
			return lost
		}
		if failed != nil {
			t.Fatalf("asleep at %d: the others: %v", n, failed)
		}
		if errors.Is(err, ErrLockLost) {
			lost++
		}
		if err := judge(be, err); err != nil {
			t.Fatalf("asleep at %d (%v): %v", n, err, err)
		}
	}
}

// storeLocked is storeTiny under a lock.
func storeLocked(ctx context.Context, be backend.Backend, day int) (err error) {
	r, err := Open(ctx, be, testSecret, tinyOptions(byte(10+day)))
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, LockWrite, "store")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	if err := r.LoadIndex(ctx); err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	_, err = storeWithParent(ctx, r, tinyFiles(day), day, list[len(list)-1])
	return err
}

// A backup that slept while others forgot what it builds on, and pruned.
func TestBackupThatSlept(t *testing.T) {
	ctx := context.Background()
	lost := everySleep(t, chainRepo(t, 1, 2, 3),
		func(be backend.Backend) error { return storeLocked(ctx, be, 4) },
		func(be *memory.Backend) error { _, err := pruneTiny(ctx, be, everything, 2, 3); return err },
		func(be *memory.Backend, err error) error {
			v, jerr := judge(be, testSecret)
			switch {
			case jerr != nil:
				return jerr
			case !v.report.Clean() || len(v.report.Problems) > 0 || len(v.damaged) > 0:
				return fmt.Errorf("check: %+v", v.report)
			case err == nil && !slices.Contains(v.days, 4) || err != nil && slices.Contains(v.days, 4):
				return fmt.Errorf("snapshots of days %v", v.days)
			}
			return nil
		})
	if lost == 0 {
		t.Errorf("%d backups noticed that they had slept", lost)
	}
}

// A prune that slept while another one pruned, and a backup came.
func TestPruneThatSlept(t *testing.T) {
	ctx := context.Background()
	for _, others := range []struct {
		name string
		days []int
		do   func(*memory.Backend) error
	}{
		{"prune", []int{1, 4, 5}, func(be *memory.Backend) error { _, err := pruneTiny(ctx, be, everything, 2, 3); return err }},
		{"store", []int{1, 4, 5, 6}, func(be *memory.Backend) error { return storeLocked(ctx, be, 6) }},
		{"store and prune", []int{1, 4, 5, 6}, func(be *memory.Backend) error {
			if err := storeLocked(ctx, be, 6); err != nil {
				return err
			}
			_, err := pruneTiny(ctx, be, everything, 2, 3)
			return err
		}},
		{"two prunes", []int{1, 5}, func(be *memory.Backend) error {
			if _, err := pruneTiny(ctx, be, everything, 2, 3); err != nil {
				return err
			}
			_, err := pruneTiny(ctx, be, everything, 4)
			return err
		}},
	} {
		t.Run(others.name, func(t *testing.T) {
			lost := everySleep(t, chainRepo(t, 1, 2, 3, 4, 5),
				func(be backend.Backend) error { _, err := pruneTiny(ctx, be, everything, 2, 3); return err },
				others.do,
				func(be *memory.Backend, err error) error {
					if err != nil && !errors.Is(err, ErrLockLost) {
						return err
					}
					// Who slept before it had forgotten anything has not forgotten it.
					if err := judgeClean(be, testSecret, others.days...); err != nil {
						if v, jerr := judge(be, testSecret); jerr != nil || !v.report.Clean() || len(v.report.Problems) > 0 || !containsAll(v.days, others.days) {
							return errors.Join(err, jerr)
						}
					}
					if _, err := pruneTiny(ctx, be, everything, 2, 3); err != nil {
						return fmt.Errorf("next prune: %w", err)
					}
					return judgeClean(be, testSecret, others.days...)
				})
			if lost == 0 {
				t.Error("no prune noticed that it had slept")
			}
		})
	}
}

func containsAll(have, want []int) bool {
	return !slices.ContainsFunc(want, func(n int) bool { return !slices.Contains(have, n) })
}

// A run that slept does not save a record of files that may be gone; the record
// of what it had saved before stays.
func TestUnfinishedRunThatSlept(t *testing.T) {
	ctx := context.Background()
	lost := everySleep(t, tinyRepo(t, 1),
		func(be backend.Backend) (err error) {
			r, err := Open(ctx, be, testSecret, tinyOptions(5))
			if err != nil {
				return err
			}
			l, err := r.Lock(ctx, LockWrite, "backup")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.Release()) }()
			if err := r.LoadIndex(ctx); err != nil {
				return err
			}
			u, err := r.NewUnfinished(UnfinishedBackup, "00008110-000A1234567890AB")
			if err != nil {
				return err
			}
			for i := range 3 {
				if err := receive(ctx, r, u, fmt.Sprint("file", i), noise(uint64(900+i), 5000)); err != nil {
					return err
				}
			}
			return nil
		},
		func(be *memory.Backend) error { _, err := pruneTiny(ctx, be, everything); return err },
		func(be *memory.Backend, err error) error {
			if err != nil && !errors.Is(err, ErrLockLost) {
				return err
			}
			if err := judgeClean(be, testSecret, 1); err != nil {
				return err
			}
			r, oerr := openWith(ctx, be, testSecret, tinyOptions(6))
			if oerr != nil {
				return oerr
			}
			runs, _, rerr := r.Unfinished(ctx)
			for _, u := range runs {
				got, gerr := received(ctx, r, u)
				if gerr != nil || len(got) != len(u.Parts) {
					return fmt.Errorf("%d files of %d parts came back: %v", len(got), len(u.Parts), gerr)
				}
				if err == nil && len(got) != 3 {
					return fmt.Errorf("%d files were saved", len(got))
				}
			}
			return rerr
		})
	if lost == 0 {
		t.Error("no run noticed that it had slept")
	}
}
