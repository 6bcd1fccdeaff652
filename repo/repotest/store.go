package repotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// UDID identifies the device of the snapshots that Store makes.
const UDID = "00008110-000A1234567890AB"

// Store writes a snapshot of f without a parent.
func Store(ctx context.Context, r *repo.Repo, f Files, day int) (*repo.Snapshot, error) {
	return StoreAfter(ctx, r, f, day, nil)
}

// StoreAfter writes a snapshot of f with a parent.
func StoreAfter(ctx context.Context, r *repo.Repo, f Files, day int, parent *repo.Snapshot) (*repo.Snapshot, error) {
	s := &repo.Snapshot{
		Time:   time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC),
		Device: repo.Device{UDID: UDID, Name: "Anna's iPhone"}, Complete: true,
	}
	return s, StoreSnapshot(ctx, r, f, s, parent)
}

// MustStoreAfter writes a snapshot of f with a parent.
func MustStoreAfter(t testing.TB, r *repo.Repo, f Files, day int, parent *repo.Snapshot) *repo.Snapshot {
	t.Helper()
	s, err := StoreAfter(context.Background(), r, f, day, parent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// StoreSnapshot stores f, sets the counts and the root of s, and stores s.
func StoreSnapshot(ctx context.Context, r *repo.Repo, f Files, s, parent *repo.Snapshot) error {
	w := r.NewWriter(ctx)
	defer w.Close()
	if err := StoreTree(ctx, r, w, f, s, parent); err != nil {
		return err
	}
	return w.Commit(ctx, s)
}

// StoreTree stores f through a writer and sets the counts and the root of s.
func StoreTree(ctx context.Context, r *repo.Repo, w *repo.Writer, f Files, s, parent *repo.Snapshot) error {
	before := map[string]*tree.Content{}
	var old *tree.Outline
	if parent != nil {
		old = r.Outline(ctx, parent)
		err := r.Walk(ctx, parent, "", func(e *tree.Entry) error { before[e.Path] = &e.Content; return nil })
		if err != nil && !errors.Is(err, repo.ErrDamaged) {
			return err
		}
	}
	content := w.NewContentWriter()
	b := tree.NewBuilder(w.SaveNode, old)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		c, err := content.Store(ctx, bytes.NewReader(f[name]), before[name])
		if err != nil {
			return err
		}
		if err := b.Add(ctx, &tree.Entry{Path: name, Mode: 0o644, Content: c}); err != nil {
			return err
		}
		s.Files++
		s.Bytes += c.Size
		// Each Flush ends a block. More blocks make more packs, and so more
		// steps that can fail.
		if c.Size >= 20<<10 {
			if err := content.Flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := content.Flush(ctx); err != nil {
		return err
	}
	var err error
	s.Root, err = b.Finish(ctx)
	return err
}

// StoreDay opens the repository, as a new process would, and stores Day(day)
// with the latest snapshot as parent.
func StoreDay(ctx context.Context, be backend.Backend, day int) (*repo.Snapshot, error) {
	return StoreFiles(ctx, be, Day(day), day)
}

// StoreFiles opens the repository, as a new process would, and stores f with the
// latest snapshot as parent.
func StoreFiles(ctx context.Context, be backend.Backend, f Files, day int) (*repo.Snapshot, error) {
	r, err := Open(ctx, be, Secret, SmallPacks(byte(10+day)))
	if err != nil {
		return nil, err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	var parent *repo.Snapshot
	if len(list) > 0 {
		parent = list[len(list)-1]
	}
	return StoreAfter(ctx, r, f, day, parent)
}

// Restore reads a snapshot.
func Restore(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (Files, error) {
	f := Files{}
	err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
		var b bytes.Buffer
		if err := r.WriteContent(ctx, &b, &e.Content); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		f[e.Path] = b.Bytes()
		return nil
	})
	return f, err
}

// FindDay returns the snapshot of a day.
func FindDay(ctx context.Context, r *repo.Repo, day int) (*repo.Snapshot, error) {
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.Time.Day() == day {
			return s, nil
		}
	}
	return nil, fmt.Errorf("day %d: %w", day, repo.ErrNoSnapshot)
}

// ForgetDays removes the snapshots of some days.
func ForgetDays(ctx context.Context, r *repo.Repo, days ...int) error {
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if slices.Contains(days, s.Time.Day()) {
			if err := r.Forget(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// Forget opens the repository, as a new process would, and removes the snapshots
// of some days.
func Forget(ctx context.Context, be backend.Backend, days ...int) error {
	r, err := repo.Open(ctx, be, Secret, SmallPacks(3))
	if err != nil {
		return err
	}
	return ForgetDays(ctx, r, days...)
}

// endedProcess returns a process that has ended, so that others find its locks to
// be stale.
func endedProcess() *process.Identity {
	p := process.Current()
	p.Started += "0"
	return &p
}

// withLock opens the repository, as a new process would, and calls fn under a
// lock. If a test kills this process, others find the lock to be stale.
func withLock(ctx context.Context, be backend.Backend, opts repo.Options, kind repo.LockKind, fn func(r *repo.Repo) error) error {
	opts.Owner, opts.Refresh = endedProcess(), -1
	r, err := repo.Open(ctx, be, Secret, opts)
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, kind, string(kind))
	if err != nil {
		return err
	}
	err = fn(r)
	return errors.Join(err, l.Release())
}

// NoWaste are options that let a prune remove everything that is unused.
var NoWaste = repo.PruneOptions{MaxUnused: func(int64) int64 { return 0 }, MaxRepack: -1}

// Prune opens the repository, as a new process would, forgets some days, and
// prunes.
func Prune(ctx context.Context, be backend.Backend, opts repo.PruneOptions, forget ...int) (rep *repo.PruneReport, err error) {
	err = withLock(ctx, be, SmallPacks(77), repo.LockPrune, func(r *repo.Repo) (err error) {
		if err := ForgetDays(ctx, r, forget...); err != nil {
			return err
		}
		opts.AllowEmpty = opts.AllowEmpty || len(forget) > 0 // as "snap forget --prune"
		rep, err = r.Prune(ctx, opts)
		return err
	})
	return rep, err
}

// Repair opens the repository, as a new process would, and calls fn under an
// exclusive lock.
func Repair(ctx context.Context, be backend.Backend, seed byte, fn func(r *repo.Repo) error) error {
	return withLock(ctx, be, SmallPacks(seed), repo.LockExclusive, fn)
}

// RepairIndex opens the repository, as a new process would, and repairs the
// index.
func RepairIndex(be backend.Backend) error {
	ctx := context.Background()
	return Repair(ctx, be, 91, func(r *repo.Repo) error { _, err := r.RepairIndex(ctx, repo.RepairOptions{}); return err })
}

// RepairPacks opens the repository, as a new process would, and repairs the
// packs.
func RepairPacks(be backend.Backend) error {
	ctx := context.Background()
	return Repair(ctx, be, 92, func(r *repo.Repo) error { _, err := r.RepairPacks(ctx, repo.RepairOptions{}); return err })
}

// RepairSnapshots opens the repository, as a new process would, and repairs the
// snapshots.
func RepairSnapshots(be backend.Backend) error {
	ctx := context.Background()
	return Repair(ctx, be, 93, func(r *repo.Repo) error {
		_, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{})
		return err
	})
}

// RepairAll repairs first the packs and then the snapshots.
func RepairAll(be backend.Backend) error {
	if err := RepairPacks(be); err != nil {
		return err
	}
	return RepairSnapshots(be)
}
