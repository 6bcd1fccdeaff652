package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/tree"
)

// readHook calls hook before a file is read.
type readHook struct {
	backend.Backend
	hook func(name string)
}

func (b *readHook) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if b.hook != nil {
		b.hook(name)
	}
	return b.Backend.ReadAt(ctx, name, p, off)
}

// anewIndex replaces all index files by one that says the same.
func anewIndex(t testing.TB, be backend.Backend) {
	t.Helper()
	ctx := context.Background()
	r, err := openWith(ctx, be, testSecret, tinyOptions(66))
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Rand = rand.Reader // another name each time
	r.indexes = crypto.NewSealer(r.master.Derive(crypto.ForIndexes), rand.Reader)
	old, f := filesIn(t, be, indexDir), &index.File{}
	for _, p := range r.index.Packs() {
		h := headerOf(r.index, p)
		f.Add(p.ID, p.Size, &h)
	}
	b, err := f.Seal(r.indexes)
	if err == nil {
		_, err = r.putNamed(ctx, indexDir, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range old {
		if err := be.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
}

// However often the index files are replaced while they are read, that is no
// damage. A file that is listed and never there is.
func TestIndexThatIsReplacedWhileItIsRead(t *testing.T) {
	for times := 1; times <= 4; times++ {
		be := chainRepo(t, 1, 2, 3)
		n := 0
		r := open(t, &readHook{be, func(name string) {
			if strings.HasPrefix(name, indexDir) && n < times {
				n++
				anewIndex(t, be)
			}
		}})
		if damage := r.IndexDamage(); n < times || len(damage) > 0 {
			t.Errorf("replaced %d times: %v", n, damage)
		}
		if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
			t.Error(err)
		}
	}
	be := chainRepo(t, 1, 2, 3)
	name := filesIn(t, be, indexDir)[0]
	r := open(t, fault.New(be, fault.On(fault.ReadAt, name, fault.From(1, backend.ErrNotExist))))
	if damage := r.IndexDamage(); len(damage) != 1 || !strings.Contains(damage[0].Error(), name) {
		t.Errorf("a file that is not there: %v", damage)
	}
}

// pruneAt is one run of a program that prunes, at a time.
func pruneAt(ctx context.Context, be backend.Backend, now time.Time) (*PruneReport, error) {
	o := tinyOptions(77)
	o.Refresh = -1
	o.Now = func() time.Time { return now }
	r, err := Open(ctx, be, testSecret, o)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, LockPrune, "prune")
	if err != nil {
		return nil, err
	}
	rep, err := r.Prune(ctx, everything)
	return rep, errors.Join(err, l.Release())
}

// A lock that is refreshed at any moment is seen by a prune, which then waits
// for its process.
func TestPruneSeesALockThatIsRefreshed(t *testing.T) {
	ctx := context.Background()
	for at := 1; at <= 4; at++ {
		be := chainRepo(t, 1, 2, 3)
		now := time.Now()
		a := lockRepo(t, be, 41, &now)
		l, err := a.Lock(ctx, LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if err := forgetTiny(ctx, be, 2); err != nil {
			t.Fatal(err)
		}
		reads := 0
		h := &readHook{be, func(name string) {
			if strings.HasPrefix(name, locksDir) && strings.HasSuffix(name, l.id.String()) {
				if reads++; reads == at {
					now = now.Add(5 * time.Minute)
					if err := l.refresh(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		}}
		rep, err := pruneAt(ctx, h, now)
		if err != nil || len(rep.Waiting) != 1 {
			t.Fatalf("refreshed at look %d: %+v, %v", at, rep, err)
		}
		if _, err := storeWithParent(ctx, a, tinyFiles(2), 2, nil); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if _, err := judge(be, testSecret); err != nil {
			t.Errorf("refreshed at look %d: %v", at, err)
		}
	}
}

func TestExclusiveSeesALockThatIsRefreshed(t *testing.T) {
	ctx := context.Background()
	be := chainRepo(t, 1)
	now := time.Now()
	a := lockRepo(t, be, 41, &now)
	l, err := a.Lock(ctx, LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	h := &readHook{Backend: be}
	b := lockRepo(t, h, 42, &now)
	first := l.id
	h.hook = func(name string) {
		if name == locksDir+first.String() && l.id == first {
			now = now.Add(5 * time.Minute)
			if err := l.refresh(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := b.Lock(ctx, LockExclusive, "repair"); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a writer: %v", err)
	}
	if err := errors.Join(l.held(ctx), l.refresh(ctx), l.Release()); err != nil {
		t.Error(err)
	}
	if n := len(filesIn(t, be, locksDir)); n > 0 {
		t.Errorf("%d files are left", n)
	}
}

// A snapshot that gets a tag while a prune reads the records keeps what it
// needs, however often that happens.
func TestPruneWhileSnapshotsAreTagged(t *testing.T) {
	ctx := context.Background()
	for times := 1; times <= 3; times++ {
		be := chainRepo(t, 1, 2, 3)
		r, err := openWith(ctx, be, testSecret, tinyOptions(50))
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := r.Snapshots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s, changes := list[1], 0
		tag := func() {
			w, err := openWith(ctx, be, testSecret, tinyOptions(byte(90+changes)))
			if err != nil {
				t.Fatal(err)
			}
			l, err := w.Lock(ctx, LockWrite, "tag")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.LoadIndex(ctx); err != nil {
				t.Fatal(err)
			}
			if s, err = w.ChangeSnapshot(ctx, s, Labels{Tags: []string{strings.Repeat("x", changes)}}); err != nil {
				t.Fatal(err)
			}
			_ = l.Release()
		}
		var mu sync.Mutex // records are read by several goroutines
		h := &readHook{be, func(name string) {
			mu.Lock()
			defer mu.Unlock()
			if changes < times && name == snapshotsDir+s.ID.String() {
				changes++
				tag()
			}
		}}
		if _, err := pruneAt(ctx, h, time.Now()); err != nil || changes < times {
			t.Fatalf("after %d changes: %v", changes, err)
		}
		if v, err := judge(be, testSecret); err != nil || len(v.days) != 3 {
			t.Errorf("%d changes: days %v, %v", times, v.days, err)
		}
	}
}

// The same for the record of a run that goes on.
func TestPruneWhileARunIsSaved(t *testing.T) {
	ctx := context.Background()
	be := chainRepo(t, 1, 2, 3)
	r, err := openWith(ctx, be, testSecret, tinyOptions(50))
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(UnfinishedBackup, "x")
	if err != nil {
		t.Fatal(err)
	}
	u.Parts = append(u.Parts, list[1].Root) // what only the run needs
	if err := r.SaveUnfinished(ctx, u); err != nil {
		t.Fatal(err)
	}
	if err := forgetTiny(ctx, be, 2); err != nil {
		t.Fatal(err)
	}
	n := 0
	h := &readHook{be, func(name string) {
		if n < 4 && name == runsDir+u.ID.String() {
			if n++; n > 1 { // those that were given up are looked for first
				u.Files++
				if err := r.SaveUnfinished(ctx, u); err != nil {
					t.Error(err)
				}
			}
		}
	}}
	if _, err := pruneAt(ctx, h, r.opts.Now()); err != nil || n < 4 {
		t.Fatalf("%d reads: %v", n, err)
	}
	x, err := openWith(ctx, be, testSecret, tinyOptions(51))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.WalkUnfinished(ctx, u, func(*tree.Entry) error { return nil }); err != nil {
		t.Error(err)
	}
	if rep, err := x.Check(ctx, CheckOptions{ReadData: 1}); err != nil || len(rep.Problems) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
