package lock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// readHook calls hook before a file is read. Files are read at the same time, the hook is
// called for one after another.
type readHook struct {
	backend.Backend
	hook func(name string)

	mu sync.Mutex
}

func (b *readHook) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if b.hook != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.hook(name)
	}
	return b.Backend.ReadAt(ctx, name, p, off)
}

// Index files that are replaced while they are read are no damage, however often
// that happens. A file that is listed and can never be read is damage.
func TestIndexThatIsReplacedWhileItIsRead(t *testing.T) {
	t.Parallel()
	for times := 1; times <= 4; times++ {
		be := repotest.New(t, 1, 2, 3)
		n := 0
		r := repotest.MustOpen(t, &readHook{Backend: be, hook: func(name string) {
			if strings.HasPrefix(name, repotest.IndexDir) && n < times {
				n++
				repotest.ReplaceIndex(t, be, nil)
			}
		}})
		if damage := r.IndexDamage(); n < times || len(damage) > 0 {
			t.Errorf("replaced %d times: %v", n, damage)
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Error(err)
		}
	}
	be := repotest.New(t, 1, 2, 3)
	name := repotest.FilesIn(t, be, repotest.IndexDir)[0]
	r := repotest.MustOpen(t, fault.New(be, fault.On(fault.ReadAt, name, fault.From(1, backend.ErrNotExist))))
	if damage := r.IndexDamage(); len(damage) != 1 || !strings.Contains(damage[0].Error(), name) {
		t.Errorf("a file that is not there: %v", damage)
	}
}

// pruneAt prunes at a given time, as another process would.
func pruneAt(ctx context.Context, be backend.Backend, now time.Time) (*repo.PruneReport, error) {
	o := repotest.SmallPacks(77)
	o.Refresh = -1
	o.Now = func() time.Time { return now }
	r, err := repo.Open(ctx, be, repotest.Secret, o)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, repo.LockPrune, "prune")
	if err != nil {
		return nil, err
	}
	rep, err := r.Prune(ctx, repotest.NoWaste)
	return rep, errors.Join(err, l.Release())
}

// A prune sees a lock even if it is refreshed at the same moment, and waits for the
// lock's process.
func TestPruneSeesALockThatIsRefreshed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for at := 1; at <= 4; at++ {
		be := repotest.New(t, 1, 2, 3)
		now := time.Now()
		a := lockRepo(t, be, 41, &now)
		l, err := a.Lock(ctx, repo.LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if err := repotest.Forget(ctx, be, 2); err != nil {
			t.Fatal(err)
		}
		reads := 0
		h := &readHook{Backend: be, hook: func(name string) {
			if strings.HasPrefix(name, repotest.LocksDir) && strings.HasSuffix(name, lock.LockID(l).String()) {
				if reads++; reads == at {
					now = now.Add(5 * time.Minute)
					if err := lock.RefreshLock(ctx, l); err != nil {
						t.Error(err)
					}
				}
			}
		}}
		rep, err := pruneAt(ctx, h, now)
		if err != nil || len(rep.Waiting) != 1 {
			t.Fatalf("refreshed at look %d: %+v, %v", at, rep, err)
		}
		if _, err := repotest.StoreAfter(ctx, a, repotest.Day(2), 2, nil); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Examine(be, repotest.Secret); err != nil {
			t.Errorf("refreshed at look %d: %v", at, err)
		}
	}
}

func TestExclusiveSeesALockThatIsRefreshed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	now := time.Now()
	a := lockRepo(t, be, 41, &now)
	l, err := a.Lock(ctx, repo.LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	h := &readHook{Backend: be}
	b := lockRepo(t, h, 42, &now)
	first := lock.LockID(l)
	h.hook = func(name string) {
		if name == repotest.LocksDir+first.String() && lock.LockID(l) == first {
			now = now.Add(5 * time.Minute)
			if err := lock.RefreshLock(ctx, l); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := b.Lock(ctx, repo.LockExclusive, "repair"); !errors.Is(err, repo.ErrLocked) {
		t.Errorf("beside a writer: %v", err)
	}
	if err := errors.Join(lock.LockHeld(ctx, l), lock.RefreshLock(ctx, l), l.Release()); err != nil {
		t.Error(err)
	}
	if n := len(repotest.FilesIn(t, be, repotest.LocksDir)); n > 0 {
		t.Errorf("%d files are left", n)
	}
}

// If snapshots are tagged while a prune reads the records, the prune keeps
// everything that they need, however often that happens.
func TestPruneWhileSnapshotsAreTagged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for times := 1; times <= 3; times++ {
		be := repotest.New(t, 1, 2, 3)
		r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(50))
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := r.Snapshots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s, changes := list[1], 0
		tag := func() {
			w, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(byte(90+changes)))
			if err != nil {
				t.Fatal(err)
			}
			l, err := w.Lock(ctx, repo.LockWrite, "tag")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.LoadIndex(ctx); err != nil {
				t.Fatal(err)
			}
			if s, err = w.ChangeSnapshot(ctx, s, repo.Labels{Tags: []string{strings.Repeat("x", changes)}}); err != nil {
				t.Fatal(err)
			}
			_ = l.Release()
		}
		var mu sync.Mutex // records are read by several goroutines
		h := &readHook{Backend: be, hook: func(name string) {
			mu.Lock()
			defer mu.Unlock()
			if changes < times && name == repotest.SnapshotsDir+s.ID.String() {
				changes++
				tag()
			}
		}}
		if _, err := pruneAt(ctx, h, time.Now()); err != nil || changes < times {
			t.Fatalf("after %d changes: %v", changes, err)
		}
		if v, err := repotest.Examine(be, repotest.Secret); err != nil || len(v.Days) != 3 {
			t.Errorf("%d changes: days %v, %v", times, v.Days, err)
		}
	}
}

// If the record of an unfinished backup is saved while a prune reads it, the prune
// keeps everything that the new record needs.
func TestPruneWhileAnUnfinishedBackupIsSaved(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	opts := repotest.SmallPacks(50)
	r, err := repotest.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(repo.UnfinishedBackup, "x")
	if err != nil {
		t.Fatal(err)
	}
	u.Parts = append(u.Parts, list[1].Root) // no snapshot needs this tree after the forget below
	if err := r.SaveUnfinished(ctx, u); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Forget(ctx, be, 2); err != nil {
		t.Fatal(err)
	}
	n := 0
	h := &readHook{Backend: be, hook: func(name string) {
		if n < 4 && name == repotest.RunsDir+u.ID.String() {
			if n++; n > 1 { // the first read looks for abandoned backups
				u.Files++
				if err := r.SaveUnfinished(ctx, u); err != nil {
					t.Error(err)
				}
			}
		}
	}}
	if _, err := pruneAt(ctx, h, opts.Now()); err != nil || n < 4 {
		t.Fatalf("%d reads: %v", n, err)
	}
	x, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(51))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.WalkUnfinished(ctx, u, func(*tree.Entry) error { return nil }); err != nil {
		t.Error(err)
	}
	if rep, err := x.Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil || len(rep.Problems) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// listHook lists with list, if that is not nil.
type listHook struct {
	backend.Backend
	list func(folder string, found func(backend.Info) error) error
}

func (b *listHook) List(ctx context.Context, folder string, found func(backend.Info) error) error {
	if b.list != nil {
		return b.list(folder, found)
	}
	return b.Backend.List(ctx, folder, found)
}

// No index file counts as lost while other processes store some, or replace all.
func TestIndexFilesAreNotLostWhileTheyAreListed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	backup := func(be backend.Backend, folder string, found func(backend.Info) error) error {
		_, err := repotest.StoreDay(ctx, be, 3)
		return errors.Join(err, be.List(ctx, folder, found))
	}
	// A folder that changes while it is listed may show neither the old files nor the new.
	replace := func(be backend.Backend, folder string, found func(backend.Info) error) error {
		if folder != repotest.IndexDir {
			return be.List(ctx, folder, found)
		}
		repotest.ReplaceIndex(t, be, nil)
		return nil
	}
	for _, change := range []func(backend.Backend, string, func(backend.Info) error) error{backup, replace} {
		for at, lists := 1, 1; at <= lists; at++ {
			be := repotest.New(t, 1, 2)
			h := &listHook{Backend: be}
			r, err := repo.Open(ctx, h, repotest.Secret, repotest.Options(9))
			if err != nil {
				t.Fatal(err)
			}
			lists = 0
			h.list = func(folder string, found func(backend.Info) error) error {
				if lists++; lists == at {
					return change(be, folder, found)
				}
				return be.List(ctx, folder, found)
			}
			list, _, err := r.SnapshotsIndexed(ctx)
			if err != nil || len(list) < 2 {
				t.Fatalf("%d snapshots, %v", len(list), err)
			}
			if damage := r.IndexDamage(list...); len(damage) > 0 {
				t.Errorf("list %d of %d: %v", at, lists, damage)
			}
		}
	}
}
