package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// removal is a mirror from which files are due to leave, and which a process of another
// computer has locked an hour ago.
type removal struct {
	source, target *memory.Backend
	opts           mirror.Options
	due            []string
}

func newRemoval(t *testing.T, withKey bool) *removal {
	t.Helper()
	g := &removal{opts: oneAtATime}
	g.source, g.target = outdatedMirror(t)
	if withKey {
		o := repotest.SmallPacks(5)
		ended := process.Current()
		ended.Started += "0" // its locks are those of a process that has ended
		o.Owner, o.Refresh = &ended, -1
		g.opts.Judge = repotest.MustOpenWith(t, g.source, repotest.Secret, o).MirrorJudge()
		g.opts.AcceptRemovals = true
	} else {
		for range 14 {
			if err := mirrorTo(g.source, g.target, g.opts); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.target.SetClock(func() time.Time { return time.Now().Add(-time.Hour) })
	g.read(t, g.target, "elsewhere")
	g.target.SetClock(time.Now)
	after := g.target.Clone()
	if err := mirrorTo(g.source, after, g.opts); err != nil {
		t.Fatal(err)
	}
	left := repotest.FilesIn(t, after, "")
	for _, name := range repotest.FilesIn(t, g.target, "") {
		if dir := repotest.Folder(name); !slices.Contains(left, name) && dir != "locks" && dir != "mirrored" {
			g.due = append(g.due, name)
		}
	}
	if len(g.due) < 3 || len(repotest.FilesIn(t, after, "locks/")) > 0 {
		t.Fatalf("due: %v; left: %v", g.due, left)
	}
	return g
}

// read locks the target, as a reader on a computer does.
func (g *removal) read(t *testing.T, be backend.Backend, host string) error {
	t.Helper()
	o := repotest.SmallPacks(8)
	if host != process.Current().Host {
		o.Owner = &process.Identity{Host: host, User: "anna", PID: 4711, Started: "12345", Boot: "1"}
	}
	o.Refresh, o.Now = -1, time.Now
	r, err := repo.Open(context.Background(), be, repotest.Secret, o)
	if err != nil {
		return err
	}
	_, err = r.Lock(context.Background(), repo.LockRead, "snap restore")
	return err
}

// judge returns an error unless every snapshot on the mirror is whole, no file has left it
// before the lock, and the next run ends the work.
func (g *removal) judge(t *testing.T, be *memory.Backend) error {
	t.Helper()
	files := repotest.FilesIn(t, be, "")
	locked := slices.ContainsFunc(files, func(name string) bool {
		return strings.HasPrefix(name, "locks/") && slices.Contains(repotest.FilesIn(t, g.target, "locks/"), name)
	})
	for _, name := range g.due {
		if locked && !slices.Contains(files, name) {
			return fmt.Errorf("%s has left before the lock of the reader", name)
		}
	}
	var err error
	for range 16 { // without the key, the count begins anew if a note could not be read
		if err := errors.Join(verifyMirror(be), mirrorTo(g.source, be, g.opts)); err != nil {
			return fmt.Errorf("next run: %w", err)
		}
		if err := g.read(t, be.Clone(), process.Current().Host); err != nil {
			return fmt.Errorf("a reader afterwards: %w", err)
		}
		if locked = len(repotest.FilesIn(t, be, "locks/")) > 0; locked && g.opts.Judge != nil {
			repotest.RemoveAllLocks(be) // of the run that failed; readers see that it has ended
			locked = false
		}
		if err = sameRepository(t, g.source, be); err == nil && !locked {
			return verifyMirror(be)
		}
	}
	return fmt.Errorf("locked %v: %w", locked, err)
}

// Whatever happens while a mirror removes stale locks and files, no snapshot on it lacks
// anything, and a process that was taken for dead loses its lock before files leave.
func TestMirrorRemovalSurvivesEveryFault(t *testing.T) {
	for _, withKey := range []bool{true, false} {
		t.Run(fmt.Sprint("key ", withKey), func(t *testing.T) {
			t.Parallel()
			g := newRemoval(t, withKey)
			run := repotest.Run{Base: g.target, Least: 20, Want: 6, Do: func(be backend.Backend) error { return mirrorTo(g.source, be, g.opts) }}
			repotest.EveryFault(t, run, func(be *memory.Backend, _ error) error { return g.judge(t, be) })
			run.Least = 5
			repotest.EveryCrash(t, run, func(be *memory.Backend) error { return g.judge(t, be) })
		})
	}
}

// A process that begins to read the mirror while files are being removed is refused. One
// that has begun before keeps them.
func TestMirrorLocksItsTarget(t *testing.T) {
	t.Parallel()
	g := newRemoval(t, true)
	begun, removing := 0, 0
	be := g.target.Clone()
	store := fault.New(be, func(c fault.Call) fault.Action {
		if c.Op == fault.Delete && slices.Contains(g.due, c.Name) {
			removing++
			if err := g.read(t, be, "elsewhere"); !errors.Is(err, repo.ErrLocked) {
				t.Errorf("a reader beside the removal: %v", err)
			}
		}
		return fault.Action{}
	})
	if err := mirrorTo(g.source, store, g.opts); err != nil || removing != len(g.due) {
		t.Errorf("removed %d of %d: %v", removing, len(g.due), err)
	}
	if left := repotest.FilesIn(t, be, "locks/"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}

	be = g.target.Clone()
	store = fault.New(be, func(c fault.Call) fault.Action {
		// The second lock file of the run is its lock. The first one told it the time.
		if c.Op == fault.Put && repotest.Folder(c.Name) == "locks" {
			if begun++; begun == 2 {
				if err := g.read(t, be, "elsewhere"); err != nil {
					t.Error(err)
				}
			}
		}
		return fault.Action{}
	})
	rep, err := mirror.Run(context.Background(), g.source, store, g.opts)
	if err != nil || begun != 2 || rep.RemovedFiles > 0 || !strings.Contains(rep.Kept, `another process uses it: "snap restore", process 4711 of anna on elsewhere`) {
		t.Errorf("beside a reader that has just begun: %d locks, %+v, %v", begun, rep, err)
	}
	if n := len(repotest.FilesIn(t, be, "locks/")); n != 1 {
		t.Errorf("%d locks are left", n)
	}
}

// A mirror without room for a lock removes files, since that makes room.
func TestMirrorRemovesWithoutRoomForALock(t *testing.T) {
	t.Parallel()
	g := newRemoval(t, true)
	for _, name := range repotest.FilesIn(t, g.target, "locks/") {
		repotest.Remove(t, g.target, name)
	}
	store := fault.New(g.target, fault.On(fault.Put, "locks/", fault.From(1, backend.ErrNoSpace)))
	rep, err := mirror.Run(context.Background(), g.source, store, g.opts)
	if err != nil || rep.RemovedFiles == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
