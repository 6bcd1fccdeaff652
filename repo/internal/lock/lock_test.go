package lock_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/repotest"
)

// lockRepo opens a repository as another process would. The test sets its clock.
func lockRepo(t *testing.T, be backend.Backend, seed byte, now *time.Time) *repo.Repo {
	t.Helper()
	opts := repotest.SmallPacks(seed)
	opts.Now = func() time.Time { return *now }
	opts.Refresh = -1
	r, err := repotest.Open(context.Background(), be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLocksThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	for _, tt := range []struct {
		first, second repo.LockKind
		ok            bool
	}{
		{repo.LockRead, repo.LockRead, true}, {repo.LockRead, repo.LockWrite, true}, {repo.LockWrite, repo.LockWrite, true},
		{repo.LockWrite, repo.LockPrune, true}, {repo.LockPrune, repo.LockWrite, true}, {repo.LockPrune, repo.LockPrune, false},
		{repo.LockExclusive, repo.LockRead, false}, {repo.LockRead, repo.LockExclusive, false}, {repo.LockExclusive, repo.LockExclusive, false},
	} {
		be := repotest.New(t)
		a, b := lockRepo(t, be, 2, &now), lockRepo(t, be, 3, &now)
		la, err := a.Lock(ctx, tt.first, "first")
		if err != nil {
			t.Fatal(err)
		}
		lb, err := b.Lock(ctx, tt.second, "second")
		if (err == nil) != tt.ok {
			t.Errorf("%s beside %s: %v", tt.second, tt.first, err)
		}
		var le *repo.LockedError
		if err != nil && (!errors.Is(err, repo.ErrLocked) || !errors.As(err, &le) || le.Lock.What != "first") {
			t.Errorf("%s beside %s: %v", tt.second, tt.first, err)
		}
		la.Release()
		lb.Release()
		if locks, _ := a.Locks(ctx); len(locks) != 0 {
			t.Errorf("%s beside %s leaves %v", tt.second, tt.first, locks)
		}
	}
}

// openStore opens the store of a repository.
func openStore(t *testing.T, be backend.Backend) *store.Store {
	t.Helper()
	s, err := access.Open(context.Background(), be, repotest.Secret, repotest.SmallPacks(9))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leave stores a lock of another process.
func leave(t *testing.T, be backend.Backend, kind repo.LockKind, o process.Identity, refreshed time.Time) repo.FileID {
	t.Helper()
	id, err := lock.LeaveLock(context.Background(), openStore(t, be), kind, o, refreshed)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStaleLocks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	self := process.Current()
	elsewhere := self
	elsewhere.Host += "-other"
	ended := self
	ended.Started += "0"
	for name, tt := range map[string]struct {
		owner process.Identity
		age   time.Duration
		state repo.LockState
	}{
		"ended a moment ago":           {ended, 0, repo.LockDead},
		"runs, and slept for a day":    {self, 24 * time.Hour, repo.LockAlive},
		"elsewhere, shows itself":      {elsewhere, 10 * time.Minute, repo.LockFresh},
		"elsewhere, silent":            {elsewhere, 31 * time.Minute, repo.LockStale},
		"elsewhere, with a fast clock": {elsewhere, -time.Hour, repo.LockFresh},
	} {
		be := repotest.New(t)
		r := lockRepo(t, be, 2, &now)
		leave(t, be, repo.LockExclusive, tt.owner, now.Add(-tt.age))
		locks, err := r.Locks(ctx)
		if err != nil || len(locks) != 1 || locks[0].State != tt.state {
			t.Errorf("%s: %+v, error %v", name, locks, err)
		}
		l, err := r.Lock(ctx, repo.LockWrite, "mine")
		if (err == nil) != lock.LockGone(tt.state) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if locks, _ := r.Locks(ctx); len(locks) != 1 || locks[0].What != "mine" {
				t.Errorf("%s is still there: %+v", name, locks)
			}
		}
		l.Release()
		removed, err := r.RemoveLocks(ctx, repo.LeftBehind)
		if err != nil || len(removed) != 0 {
			t.Errorf("%s: unlock removed %v, error %v", name, removed, err)
		}
		removed, _ = r.RemoveLocks(ctx, anyLock)
		if want := 1; (len(removed) == want) == lock.LockGone(tt.state) {
			t.Errorf("%s: unlock by force removed %v", name, removed)
		}
	}
}

func anyLock(repo.LockInfo) bool { return true }

func TestDamagedLock(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	be := repotest.New(t)
	r := lockRepo(t, be, 2, &now)
	repotest.PutNamed(t, be, repotest.LocksDir, []byte("snaplk01 nonsense"))
	l, err := r.Lock(ctx, repo.LockWrite, "backup")
	if err != nil {
		t.Fatalf("a damaged lock stops a backup: %v", err)
	}
	l.Release()
	if _, err := r.Lock(ctx, repo.LockPrune, "prune"); !errors.Is(err, repo.ErrLocked) {
		t.Fatalf("a damaged lock does not stop what removes: %v", err)
	}
	if removed, err := r.RemoveLocks(ctx, anyLock); err != nil || len(removed) != 1 {
		t.Fatal(removed, err)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	be := repotest.New(t)
	r := lockRepo(t, be, 2, &now)
	l, err := r.Lock(ctx, repo.LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if err := lock.RefreshLock(ctx, l); err != nil {
		t.Fatal(err)
	}
	locks, err := r.Locks(ctx)
	if err != nil || len(locks) != 1 || !locks[0].Refreshed.Equal(now.UTC().Round(0)) || !locks[0].Since.Equal(now.Add(-time.Hour).Round(0)) {
		t.Fatal(locks, err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestLockRefreshesItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		opts := repotest.SmallPacks(3)
		opts.Refresh = 5 * time.Minute
		r := repotest.MustOpenWith(t, repotest.New(t), repotest.Secret, opts)
		l, err := r.Lock(ctx, repo.LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[repo.FileID]bool{}
		for range 3 {
			locks, err := r.Locks(ctx)
			if err != nil || len(locks) != 1 || seen[locks[0].ID] {
				t.Fatalf("locks %+v, error %v; want one that was refreshed", locks, err)
			}
			seen[locks[0].ID] = true
			time.Sleep(opts.Refresh)
			synctest.Wait()
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
		if left, err := r.Locks(ctx); err != nil || len(left) != 0 {
			t.Errorf("locks %+v are left, error %v", left, err)
		}
	})
}

// A process whose lock was removed as stale writes no snapshot.
func TestLostLockMakesNoSnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	for name, when := range map[string]string{"before the snapshot": "before", "and it was refreshed since": "refresh", "while the snapshot is written": "during"} {
		mem := repotest.New(t)
		be := &lockThief{Backend: mem}
		r := lockRepo(t, be, 2, &now)
		l, err := r.Lock(ctx, repo.LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		steal := func() {
			other := lockRepo(t, mem, 3, &now)
			if removed, err := other.RemoveLocks(ctx, anyLock); err != nil || len(removed) != 1 {
				t.Fatal(removed, err)
			}
		}
		switch when {
		case "before":
			steal()
		case "refresh":
			steal()
			now = now.Add(time.Second)
			if err := lock.RefreshLock(ctx, l); !errors.Is(err, repo.ErrLockLost) {
				t.Errorf("refreshing a lost lock: %v", err)
			}
		case "during":
			be.steal = steal
		}
		if _, err := repotest.Store(ctx, r, repotest.Day(1), 1); !errors.Is(err, repo.ErrLockLost) {
			t.Errorf("%s: %v", name, err)
		}
		if list, _, _ := r.Snapshots(ctx); len(list) != 0 {
			t.Errorf("%s: there is a snapshot", name)
		}
		l.Release()
		if locks, _ := r.Locks(ctx); len(locks) != 0 {
			t.Errorf("%s: locks are left: %v", name, locks)
		}
	}
}

// lockThief removes all locks just before a snapshot is stored.
type lockThief struct {
	*memory.Backend
	steal func()
}

func (b *lockThief) Put(ctx context.Context, name string, data []byte) error {
	if b.steal != nil && len(name) > len(repotest.SnapshotsDir) && name[:len(repotest.SnapshotsDir)] == repotest.SnapshotsDir {
		b.steal()
	}
	return b.Backend.Put(ctx, name, data)
}

// A process that has read a prune list can read the packs on it, stores their
// chunks again, and says in its lock that it has read the list.
func TestWritersAvoidRetiredPacks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	be := repotest.New(t, 1)
	r := lockRepo(t, be, 2, &now)
	var packs []repo.FileID
	for _, p := range r.Index().Packs() {
		packs = append(packs, repo.FileID(p.ID))
	}
	list, err := openStore(t, be).PutPruneList(ctx, packs)
	if err != nil {
		t.Fatal(err)
	}
	w := lockRepo(t, be, 3, &now)
	l, err := w.Lock(ctx, repo.LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if err := w.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	locks, _ := r.Locks(ctx)
	if len(locks) != 1 || !slices.Equal(lock.LockSeen(locks[0]), []repo.FileID{list.ID}) {
		t.Fatalf("the lock says %+v", locks)
	}
	if err := repotest.Verify(be, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Store(ctx, w, repotest.Day(1), 1); err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		if err := be.Delete(ctx, repotest.PacksDir+p.String()[:2]+"/"+p.String()); err != nil {
			t.Fatal(err)
		}
	}
	fresh := lockRepo(t, be, 4, &now)
	list2, _, err := fresh.Snapshots(ctx)
	if err != nil || len(list2) != 2 {
		t.Fatal(list2, err)
	}
	got, err := repotest.Restore(ctx, fresh, list2[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Same(repotest.Day(1)); err != nil {
		t.Fatal(err)
	}
}
