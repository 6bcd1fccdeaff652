package lock_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
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

// leave stores a lock of another process, whose clock says refreshed while that of the
// store says put.
func leave(t *testing.T, be *memory.Backend, kind repo.LockKind, o process.Identity, refreshed, put time.Time) {
	t.Helper()
	s := openStore(t, be)
	be.SetClock(func() time.Time { return put })
	if _, err := lock.LeaveLock(context.Background(), s, kind, o, refreshed); err != nil {
		t.Fatal(err)
	}
}

// elsewhere returns a process of another host.
func elsewhere() process.Identity {
	o := process.Current()
	o.Host, o.Boot, o.Machine = "raspberrypi", "another", "another"
	return o
}

func TestStaleLocks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	self := process.Current()
	ended := self
	ended.Started += "0"
	year := 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		owner process.Identity
		age   time.Duration // by the clock of its host
		put   time.Duration // its age by the clock of the store
		state repo.LockState
	}{
		"ended a moment ago":          {ended, 0, 0, repo.LockDead},
		"ended, dated far ahead":      {ended, -year, -year, repo.LockDead},
		"runs, and slept for a day":   {self, 24 * time.Hour, 24 * time.Hour, repo.LockAlive},
		"refreshed":                   {elsewhere(), 10 * time.Minute, 10 * time.Minute, repo.LockFresh},
		"not refreshed":               {elsewhere(), 31 * time.Minute, 31 * time.Minute, repo.LockStale},
		"with a slow clock":           {elsewhere(), 40 * time.Minute, time.Minute, repo.LockFresh},
		"with a fast clock":           {elsewhere(), -20 * time.Minute, time.Minute, repo.LockFresh},
		"dated far ahead":             {elsewhere(), -year, time.Minute, repo.LockUnknown},
		"dated far ahead, and left":   {elsewhere(), -year, 31 * time.Minute, repo.LockStale},
		"on a drive from elsewhere":   {elsewhere(), -year, -year, repo.LockUnknown},
		"on a drive, a little ahead":  {elsewhere(), -20 * time.Minute, -20 * time.Minute, repo.LockFresh},
		"on a drive, and not so new":  {elsewhere(), 2 * year, 2 * year, repo.LockStale},
		"with a slow clock, and left": {elsewhere(), 0, 31 * time.Minute, repo.LockStale},
	} {
		be := repotest.New(t)
		hostNow := now.Add(3 * year) // says nothing of others
		r := lockRepo(t, be, 2, &hostNow)
		leave(t, be, repo.LockExclusive, tt.owner, now.Add(-tt.age), now.Add(-tt.put))
		be.SetClock(func() time.Time { return now })
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
			if got := l.Skew().Round(time.Minute); got != 3*year {
				t.Errorf("%s: the clock of this host is %v ahead", name, got)
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

// noTimes is a store that does not tell when files were put.
type noTimes struct{ backend.Backend }

func (b noTimes) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return b.Backend.List(ctx, prefix, func(info backend.Info) error {
		info.Modified = time.Time{}
		return fn(info)
	})
}

// A lock that no clock can judge is stale when a process has watched it for half an
// hour. A refresh begins that time anew.
func TestWatchedLocks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	year := 365 * 24 * time.Hour
	for name, open := range map[string]func(be *memory.Backend) backend.Backend{
		"a drive from a host with a fast clock": func(be *memory.Backend) backend.Backend {
			be.SetClock(func() time.Time { return now.Add(-year) })
			return be
		},
		"a store without times": func(be *memory.Backend) backend.Backend { return noTimes{be} },
	} {
		be := repotest.New(t)
		leave(t, be, repo.LockExclusive, elsewhere(), now, now)
		opts := repotest.SmallPacks(3)
		opts.Refresh = -1
		elapsed := time.Hour
		opts.Elapsed = func() time.Duration { return elapsed }
		r, err := repotest.Open(ctx, open(be), repotest.Secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		try := func(wait time.Duration) error {
			elapsed += wait
			l, err := r.Lock(ctx, repo.LockPrune, "prune")
			l.Release()
			return err
		}
		for range 3 {
			var locked *repo.LockedError
			if err := try(20 * time.Minute); !errors.As(err, &locked) || locked.Lock.State != repo.LockUnknown {
				t.Errorf("%s: %v", name, err)
			} else if !strings.Contains(locked.Hint(), "snap unlock "+locked.Lock.ID.Short()) {
				t.Errorf("%s: the hint is %s", name, locked.Hint())
			}
			refreshed := now.Add(elapsed)
			leave(t, be, repo.LockExclusive, elsewhere(), refreshed, refreshed)
			open(be)
		}
		if err := try(0); !errors.Is(err, repo.ErrLocked) {
			t.Errorf("%s, just refreshed: %v", name, err)
		}
		if err := try(lock.StaleAfter); !errors.Is(err, repo.ErrLocked) {
			t.Errorf("%s, unchanged for half an hour: %v", name, err)
		}
		if err := try(time.Second); err != nil {
			t.Errorf("%s, unchanged for longer: %v", name, err)
		}
	}
}

// A process does not rely on a clock that went backwards before its eyes.
func TestStoreClockGoesBackwards(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	be := repotest.New(t)
	be.SetClock(func() time.Time { return now })
	r := lockRepo(t, be, 2, &now)
	l, err := r.Lock(ctx, repo.LockRead, "first")
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	leave(t, be, repo.LockPrune, elsewhere(), now, now.Add(-3*time.Hour))
	be.SetClock(func() time.Time { return now.Add(-time.Hour) })
	if _, err := r.Lock(ctx, repo.LockPrune, "second"); !errors.Is(err, repo.ErrLocked) {
		t.Errorf("the process that saw it: %v", err)
	}
	l, err = lockRepo(t, be, 3, &now).Lock(ctx, repo.LockPrune, "other")
	if err != nil {
		t.Errorf("another process: %v", err)
	}
	l.Release()
}

// A reader, or a backup beside another one, removes no lock for its age.
func TestLockInNobodysWay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	be := repotest.New(t)
	leave(t, be, repo.LockWrite, elsewhere(), now, now)
	be.SetClock(func() time.Time { return now.Add(time.Hour) })
	r := lockRepo(t, be, 2, &now)
	for kind, want := range map[repo.LockKind]int{repo.LockRead: 2, repo.LockWrite: 2} {
		l, err := r.Lock(ctx, kind, "mine")
		if err != nil {
			t.Fatal(err)
		}
		if locks, err := r.Locks(ctx); err != nil || len(locks) != want {
			t.Errorf("%s: %+v, %v", kind, locks, err)
		}
		l.Release()
	}
	l, err := r.Lock(ctx, repo.LockPrune, "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if locks, err := r.Locks(ctx); err != nil || len(locks) != 1 {
		t.Errorf("a prune leaves %+v, %v", locks, err)
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
	repotest.PutNamed(t, be, repotest.LocksDir, nil)
	l, err := r.Lock(ctx, repo.LockWrite, "backup")
	if err != nil {
		t.Fatalf("a damaged lock stops a backup: %v", err)
	}
	l.Release()
	if _, err := r.Lock(ctx, repo.LockPrune, "prune"); !errors.Is(err, repo.ErrLocked) {
		t.Fatalf("a damaged lock does not stop a prune: %v", err)
	}
	// A power cut can leave an empty lock. It does not block for ever.
	be.SetClock(func() time.Time { return now.Add(31 * time.Minute) })
	locks, err := r.Locks(ctx)
	if err != nil || len(locks) != 2 || locks[0].State != repo.LockStale || locks[1].State != repo.LockStale {
		t.Errorf("half an hour later: %+v, %v", locks, err)
	}
	l, err = r.Lock(ctx, repo.LockPrune, "prune")
	if err != nil {
		t.Fatalf("half an hour later: %v", err)
	}
	l.Release()
	if removed, err := r.RemoveLocks(ctx, anyLock); err != nil || len(removed) != 0 {
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

// A lock remembers the files that it could not remove, and takes their absence for no
// removal by another process.
func TestRefreshThatCannotRemove(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, plan := range map[string]fault.Plan{
		"kept":    fault.Once(1, fault.ErrInjected),
		"removed": fault.OnceAfter(1, fault.ErrInjected),
		"thrice":  fault.From(1, fault.ErrInjected),
	} {
		now := time.Now()
		be := fault.New(repotest.New(t))
		l, err := lockRepo(t, be, 2, &now).Lock(ctx, repo.LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		be.SetPlan(fault.On(fault.Delete, repotest.LocksDir, plan))
		for i := range 6 {
			if i == 4 {
				be.SetPlan() // the store works again
			}
			now = now.Add(time.Minute)
			switch err := lock.RefreshLock(ctx, l); {
			case errors.Is(err, fault.ErrInjected):
				failed++
			case err != nil:
				t.Errorf("%s: refresh %d: %v", name, i, err)
			}
		}
		if err := lock.LockHeld(ctx, l); err != nil || failed == 0 {
			t.Errorf("%s: %d refreshes failed; held: %v", name, failed, err)
		}
		if left := repotest.FilesIn(t, be, repotest.LocksDir); len(left) != 2 {
			t.Errorf("%s: the lock has the files %v", name, left)
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
		if left := repotest.FilesIn(t, be, repotest.LocksDir); len(left) != 0 {
			t.Errorf("%s: after the release there are %v", name, left)
		}
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
	for name, when := range map[string]string{"before the snapshot": "before", "before a refresh": "refresh", "while the snapshot is written": "during"} {
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

// late is a store that lists a file only some time after it was put.
type late struct {
	*memory.Backend
	hidden string // that is not listed yet
	gone   bool   // whether that file is removed before it is listed
}

func (b *late) Put(ctx context.Context, name string, data []byte) error {
	b.hidden = name
	return b.Backend.Put(ctx, name, data)
}

func (b *late) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if b.gone {
		_ = b.Delete(ctx, b.hidden)
	}
	return b.Backend.List(ctx, prefix, func(f backend.Info) error {
		if f.Name == b.hidden {
			return nil
		}
		return fn(f)
	})
}

// A store that lists late is noticed before anything is done, since processes would not see each
// other's locks. So is a lock that somebody removes at once.
func TestListsLate(t *testing.T) {
	for gone, want := range map[bool]error{false: lock.ErrListsLate, true: store.ErrLockLost} {
		be := &late{Backend: repotest.New(t), gone: gone}
		r := openStore(t, be)
		if _, err := lock.Acquire(t.Context(), r, lock.Write, "test"); !errors.Is(err, want) {
			t.Errorf("removed %v: %v, want %v", gone, err, want)
		}
		if left := repotest.FilesIn(t, be.Backend, repotest.LocksDir); len(left) > 0 || r.Guard != nil {
			t.Errorf("removed %v: locks %v are left", gone, left)
		}
	}
}
