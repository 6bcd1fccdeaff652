package repo

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// lockRepo is one process's view of a store, with a clock to set.
func lockRepo(t *testing.T, be backend.Backend, seed byte, now *time.Time) *Repo {
	t.Helper()
	opts := tinyOptions(seed)
	opts.Now = func() time.Time { return *now }
	opts.Refresh = -1
	r, err := openWith(context.Background(), be, testSecret, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhichLocksSufferEachOther(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	for _, tt := range []struct {
		first, second LockKind
		ok            bool
	}{
		{LockRead, LockRead, true}, {LockRead, LockWrite, true}, {LockWrite, LockWrite, true},
		{LockWrite, LockPrune, true}, {LockPrune, LockWrite, true}, {LockPrune, LockPrune, false},
		{LockExclusive, LockRead, false}, {LockRead, LockExclusive, false}, {LockExclusive, LockExclusive, false},
	} {
		be := tinyRepo(t)
		a, b := lockRepo(t, be, 2, &now), lockRepo(t, be, 3, &now)
		la, err := a.Lock(ctx, tt.first, "first")
		if err != nil {
			t.Fatal(err)
		}
		lb, err := b.Lock(ctx, tt.second, "second")
		if (err == nil) != tt.ok {
			t.Errorf("%s beside %s: %v", tt.second, tt.first, err)
		}
		var le *LockedError
		if err != nil && (!errors.Is(err, ErrLocked) || !errors.As(err, &le) || le.Lock.What != "first") {
			t.Errorf("%s beside %s: %v", tt.second, tt.first, err)
		}
		la.Release()
		lb.Release()
		if locks, _ := a.Locks(ctx); len(locks) != 0 {
			t.Errorf("%s beside %s leaves %v", tt.second, tt.first, locks)
		}
	}
}

// leave puts a lock of another process into the store.
func leave(t *testing.T, r *Repo, kind LockKind, o process.Identity, refreshed time.Time) FileID {
	t.Helper()
	id, err := r.putLock(context.Background(), lockBody{
		Version: lockVersion, Session: "other", Kind: kind, What: "other", Owner: o, Since: refreshed, Refreshed: refreshed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLocksLeftBehind(t *testing.T) {
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
		state LockState
	}{
		"ended a moment ago":           {ended, 0, LockDead},
		"runs, and slept for a day":    {self, 24 * time.Hour, LockAlive},
		"elsewhere, shows itself":      {elsewhere, 10 * time.Minute, LockFresh},
		"elsewhere, silent":            {elsewhere, 31 * time.Minute, LockStale},
		"elsewhere, with a fast clock": {elsewhere, -time.Hour, LockFresh},
	} {
		be := tinyRepo(t)
		r := lockRepo(t, be, 2, &now)
		leave(t, r, LockExclusive, tt.owner, now.Add(-tt.age))
		locks, err := r.Locks(ctx)
		if err != nil || len(locks) != 1 || locks[0].State != tt.state {
			t.Errorf("%s: %+v, error %v", name, locks, err)
		}
		l, err := r.Lock(ctx, LockWrite, "mine")
		if (err == nil) != tt.state.gone() {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if locks, _ := r.Locks(ctx); len(locks) != 1 || locks[0].What != "mine" {
				t.Errorf("%s is still there: %+v", name, locks)
			}
		}
		l.Release()
		removed, err := r.RemoveLocks(ctx, LeftBehind)
		if err != nil || len(removed) != 0 {
			t.Errorf("%s: unlock removed %v, error %v", name, removed, err)
		}
		removed, _ = r.RemoveLocks(ctx, anyLock)
		if want := 1; (len(removed) == want) == tt.state.gone() {
			t.Errorf("%s: unlock by force removed %v", name, removed)
		}
	}
}

func anyLock(LockInfo) bool { return true }

func TestDamagedLock(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	be := tinyRepo(t)
	r := lockRepo(t, be, 2, &now)
	if _, err := r.putNamed(ctx, locksDir, []byte("snaplk01 nonsense")); err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, LockWrite, "backup")
	if err != nil {
		t.Fatalf("a damaged lock stops a backup: %v", err)
	}
	l.Release()
	if _, err := r.Lock(ctx, LockPrune, "prune"); !errors.Is(err, ErrLocked) {
		t.Fatalf("a damaged lock does not stop what removes: %v", err)
	}
	if removed, err := r.RemoveLocks(ctx, anyLock); err != nil || len(removed) != 1 {
		t.Fatal(removed, err)
	}
}

func TestRefresh(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	be := tinyRepo(t)
	r := lockRepo(t, be, 2, &now)
	l, err := r.Lock(ctx, LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if err := l.refresh(ctx); err != nil {
		t.Fatal(err)
	}
	locks, err := r.Locks(ctx)
	if err != nil || len(locks) != 1 || !locks[0].Refreshed.Equal(now.UTC().Round(0)) || !locks[0].Since.Equal(now.Add(-time.Hour).Round(0)) {
		t.Fatal(locks, err)
	}
	l.Release()
	opts := tinyOptions(3)
	opts.Refresh = time.Millisecond
	if r, err = openWith(ctx, be, testSecret, opts); err != nil {
		t.Fatal(err)
	}
	if l, err = r.Lock(ctx, LockWrite, "backup"); err != nil {
		t.Fatal(err)
	}
	first, _ := r.Locks(ctx)
	for range 1000 {
		time.Sleep(time.Millisecond)
		if again, _ := r.Locks(ctx); len(again) > 0 && again[0].ID != first[0].ID {
			l.Release()
			if left, _ := r.Locks(ctx); len(left) != 0 {
				t.Fatal(left)
			}
			return
		}
	}
	t.Error("the lock does not refresh itself")
}

// A process that was taken for dead, and is not, makes no snapshot.
func TestLostLockMakesNoSnapshot(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	for name, when := range map[string]string{"before the snapshot": "before", "and it was refreshed since": "refresh", "while the snapshot is written": "during"} {
		mem := tinyRepo(t)
		be := &lockThief{Backend: mem}
		r := lockRepo(t, be, 2, &now)
		l, err := r.Lock(ctx, LockWrite, "backup")
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
			if err := l.refresh(ctx); !errors.Is(err, ErrLockLost) {
				t.Errorf("refreshing a lost lock: %v", err)
			}
		case "during":
			be.steal = steal
		}
		if _, err := store(ctx, r, tinyFiles(1), 1); !errors.Is(err, ErrLockLost) {
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

// lockThief takes the locks away just before a snapshot is put.
type lockThief struct {
	*memory.Backend
	steal func()
}

func (b *lockThief) Put(ctx context.Context, name string, data []byte) error {
	if b.steal != nil && len(name) > len(snapshotsDir) && name[:len(snapshotsDir)] == snapshotsDir {
		b.steal()
	}
	return b.Backend.Put(ctx, name, data)
}

// A process that has read a list of packs to remove stores again what they
// hold, can read it, and says in its lock that it has read the list.
func TestWritersAvoidPacksThatAreToGo(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	be := tinyRepo(t, 1)
	r := lockRepo(t, be, 2, &now)
	var packs []FileID
	for _, p := range r.Index().Packs() {
		packs = append(packs, FileID(p.ID))
	}
	list, err := r.putPruneList(ctx, packs)
	if err != nil {
		t.Fatal(err)
	}
	w := lockRepo(t, be, 3, &now)
	l, err := w.Lock(ctx, LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if err := w.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	locks, _ := r.Locks(ctx)
	if len(locks) != 1 || len(locks[0].seen) != 1 || locks[0].seen[0] != list.ID {
		t.Fatalf("the lock says %+v", locks)
	}
	if err := judgeClean(be, testSecret, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := store(ctx, w, tinyFiles(1), 1); err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		if err := be.Delete(ctx, packsDir+p.String()[:2]+"/"+p.String()); err != nil {
			t.Fatal(err)
		}
	}
	fresh := lockRepo(t, be, 4, &now)
	list2, _, err := fresh.Snapshots(ctx)
	if err != nil || len(list2) != 2 {
		t.Fatal(list2, err)
	}
	got, err := restore(ctx, fresh, list2[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := sameFiles(got, tinyFiles(1)); err != nil {
		t.Fatal(err)
	}
}

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"write","seen":["` + FileID{}.String() + `"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		parsePruneList(b)
		parseLock(b)
	})
}
