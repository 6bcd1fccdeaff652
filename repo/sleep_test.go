package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// everySleep lets a process sleep at one of its steps. Meanwhile others find its
// lock to be stale, remove it, and work. Then the process continues. It may fail
// with ErrLockLost. judge must return an error if anything was lost. everySleep
// returns how often the process failed.
func everySleep(t *testing.T, want int, base *memory.Backend, run func(backend.Backend) error, others func(*memory.Backend) error, judge func(be *memory.Backend, err error) error) (lost int) {
	t.Helper()
	ctx := context.Background()
	for _, n := range (repotest.Run{Base: base, Do: run, Least: 10, Want: want}).Steps(t) {
		if n == 1 {
			continue // the process has no lock yet
		}
		be := base.Clone()
		var failed error
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n {
				r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(4))
				if err == nil {
					_, err = r.RemoveLocks(ctx, func(repo.LockInfo) bool { return true })
				}
				if err == nil {
					err = others(be)
				}
				failed = err
			}
			return fault.Action{}
		})
		err := run(store)
		if failed != nil {
			t.Fatalf("asleep at %d: the others: %v", n, failed)
		}
		if errors.Is(err, repo.ErrLockLost) {
			lost++
		}
		if err := judge(be, err); err != nil {
			t.Fatalf("asleep at %d (%v): %v", n, err, err)
		}
	}
	return lost
}

// storeLocked stores a day under a lock.
func storeLocked(ctx context.Context, be backend.Backend, day int) (err error) {
	r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(byte(10+day)))
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, repo.LockWrite, "store")
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
	_, err = repotest.StoreAfter(ctx, r, repotest.Day(day), day, list[len(list)-1])
	return err
}

// A backup sleeps while others forget the snapshots that it builds on, and
// prune.
func TestBackupThatSlept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	lost := everySleep(t, 12, repotest.New(t, 1, 2, 3),
		func(be backend.Backend) error { return storeLocked(ctx, be, 4) },
		func(be *memory.Backend) error { _, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3); return err },
		func(be *memory.Backend, err error) error {
			v, jerr := repotest.Examine(be, repotest.Secret)
			switch {
			case jerr != nil:
				return jerr
			case !v.Report.Clean() || len(v.Report.Problems) > 0 || len(v.Damaged) > 0:
				return fmt.Errorf("check: %+v", v.Report)
			case err == nil && !slices.Contains(v.Days, 4) || err != nil && slices.Contains(v.Days, 4):
				return fmt.Errorf("snapshots of days %v", v.Days)
			}
			return nil
		})
	if lost == 0 && faultpoint.All() {
		t.Errorf("%d backups noticed that they had slept", lost)
	}
}

// A prune sleeps while another one prunes and a backup is stored.
func TestPruneThatSlept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, others := range []struct {
		name string
		days []int
		do   func(*memory.Backend) error
	}{
		{"prune", []int{1, 4, 5}, func(be *memory.Backend) error { _, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3); return err }},
		{"store", []int{1, 4, 5, 6}, func(be *memory.Backend) error { return storeLocked(ctx, be, 6) }},
		{"store and prune", []int{1, 4, 5, 6}, func(be *memory.Backend) error {
			if err := storeLocked(ctx, be, 6); err != nil {
				return err
			}
			_, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3)
			return err
		}},
		{"two prunes", []int{1, 5}, func(be *memory.Backend) error {
			if _, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3); err != nil {
				return err
			}
			_, err := repotest.Prune(ctx, be, repotest.NoWaste, 4)
			return err
		}},
	} {
		t.Run(others.name, func(t *testing.T) {
			lost := everySleep(t, 6, repotest.New(t, 1, 2, 3, 4, 5),
				func(be backend.Backend) error { _, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3); return err },
				others.do,
				func(be *memory.Backend, err error) error {
					if err != nil && !errors.Is(err, repo.ErrLockLost) {
						return err
					}
					// If the prune slept before it forgot anything, more days
					// may be left.
					if err := repotest.Verify(be, others.days...); err != nil {
						if v, jerr := repotest.Examine(be, repotest.Secret); jerr != nil || !v.Report.Clean() || len(v.Report.Problems) > 0 || !containsAll(v.Days, others.days) {
							return errors.Join(err, jerr)
						}
					}
					if _, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3); err != nil {
						return fmt.Errorf("next prune: %w", err)
					}
					return repotest.Verify(be, others.days...)
				})
			if lost == 0 && faultpoint.All() {
				t.Error("no prune noticed that it had slept")
			}
		})
	}
}

func containsAll(have, want []int) bool {
	return !slices.ContainsFunc(want, func(n int) bool { return !slices.Contains(have, n) })
}

// A run that slept does not save a record that lists files which others may have
// removed. The record that it saved before it slept stays.
func TestUnfinishedRunThatSlept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	lost := everySleep(t, 12, repotest.New(t, 1),
		func(be backend.Backend) (err error) {
			r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(5))
			if err != nil {
				return err
			}
			l, err := r.Lock(ctx, repo.LockWrite, "backup")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.Release()) }()
			if err := r.LoadIndex(ctx); err != nil {
				return err
			}
			u, err := r.NewUnfinished(repo.UnfinishedBackup, "00008110-000A1234567890AB")
			if err != nil {
				return err
			}
			for i := range 3 {
				if err := repotest.Receive(ctx, r, u, fmt.Sprint("file", i), repotest.Noise(uint64(900+i), 5000)); err != nil {
					return err
				}
			}
			return nil
		},
		func(be *memory.Backend) error { _, err := repotest.Prune(ctx, be, repotest.NoWaste); return err },
		func(be *memory.Backend, err error) error {
			if err != nil && !errors.Is(err, repo.ErrLockLost) {
				return err
			}
			if err := repotest.Verify(be, 1); err != nil {
				return err
			}
			r, oerr := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(6))
			if oerr != nil {
				return oerr
			}
			runs, _, rerr := r.Unfinished(ctx)
			for _, u := range runs {
				got, gerr := repotest.Received(ctx, r, u)
				if gerr != nil || len(got) != len(u.Parts) {
					return fmt.Errorf("%d files of %d parts were read: %v", len(got), len(u.Parts), gerr)
				}
				if err == nil && len(got) != 3 {
					return fmt.Errorf("%d files were saved", len(got))
				}
			}
			return rerr
		})
	if lost == 0 && faultpoint.All() {
		t.Error("no run noticed that it had slept")
	}
}
