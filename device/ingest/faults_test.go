package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// twoDays returns a repository with the backup of day 1, and a folder with the
// backup of day 2.
func twoDays(t *testing.T) (m *foldertest.Folder, base *memory.Backend, contents map[int]foldertest.Contents) {
	m = foldertest.New(t)
	base = memory.New()
	mustImport(t, createRepo(t, base), m.Dir, Options{})
	contents = map[int]foldertest.Contents{1: foldertest.MustRead(t, m.Dir)}
	m.Put("HomeDomain", "Library/Preferences/p3.plist", []byte("changed on day 2"))
	m.Put("HomeDomain", "Library/SMS/sms.db", append([]byte("SQLite format 3\x00"), foldertest.Noise(4, 75<<10)...))
	m.Put("CameraRollDomain", "Media/DCIM/c.jpg", foldertest.Noise(5, 45<<10))
	m.Put("CameraRollDomain", "Media/DCIM/d.jpg", foldertest.Noise(6, 45<<10))
	m.Finish(2)
	contents[2] = foldertest.MustRead(t, m.Dir)
	return m, base, contents
}

// runImport acts as a process that imports a folder and ends.
func runImport(be backend.Backend, dir string) error { return runImportAs(be, dir, seed(20)) }

// runImportAs is runImport with other randomness, since no two processes write
// a file with the same bytes and name.
func runImportAs(be backend.Backend, dir string, n seed) error {
	r, err := openRepo(be, n)
	if err != nil {
		return err
	}
	_, err = importDir(r, dir, Options{Workers: 1})
	return err
}

// judgeAfter returns an error unless day 1 is complete, day 2 is complete or
// absent, and the next import succeeds. The torn files may be damaged.
func judgeAfter(be backend.Backend, dir string, contents map[int]foldertest.Contents, succeeded bool, torn ...string) error {
	days, err := checkDays(be, contents, torn...)
	if err != nil {
		return err
	}
	if !slices.Equal(days, []int{1, 2}) && (succeeded || !slices.Equal(days, []int{1})) {
		return fmt.Errorf("snapshots of days %v", days)
	}
	if err := runImportAs(be, dir, seed(21)); err != nil {
		return fmt.Errorf("next import: %w", err)
	}
	if after, err := checkDays(be, contents, torn...); err != nil || !slices.Equal(after, append(days, 2)) {
		return fmt.Errorf("after the next import: days %v after %v: %w", after, days, err)
	}
	return nil
}

func TestImportSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	m, base, contents := twoDays(t)
	run := repotest.Run{Base: base, Do: func(be backend.Backend) error { return runImport(be, m.Dir) }, Least: 15, Want: 5, Notices: true}
	repotest.EveryFault(t, run, func(be *memory.Backend, err error) error {
		return judgeAfter(be, m.Dir, contents, err == nil)
	})
}

func TestImportSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	m, base, contents := twoDays(t)
	run := repotest.Run{Base: base, Do: func(be backend.Backend) error { return runImport(be, m.Dir) }, Least: 5, Want: 5}
	repotest.EveryCrash(t, run, func(be *memory.Backend) error { return judgeAfter(be, m.Dir, contents, false) })
}

// A disk that does not flush as promised can tear files. Check reports the torn
// files, and no others.
func TestImportSurvivesTornFiles(t *testing.T) {
	t.Parallel()
	m, base, contents := twoDays(t)
	run := repotest.Run{Base: base, Do: func(be backend.Backend) error { return runImport(be, m.Dir) }, Least: 5, Want: 5}
	repotest.EveryTear(t, run, func(be *memory.Backend) error {
		return judgeAfter(be, m.Dir, contents, false, repotest.DamagedFiles(t, be)...)
	})
}

// An import reports that the store is full, at whatever byte that happens. Once
// the store has room again, the import succeeds.
func TestImportSurvivesFullStore(t *testing.T) {
	t.Parallel()
	m, base, contents := twoDays(t)
	sizes, err := repotest.PutSizes(base, func(be backend.Backend) error { return runImport(be, m.Dir) })
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	const step = 10_000
	if total < 10*step {
		t.Fatalf("the import stores only %d bytes", total)
	}
	for _, i := range faultpoint.Choose(t, total/step, 5) {
		store, room := base.Clone(), int64(i*step)
		if err := runImport(fault.New(store, fault.Full(room)), m.Dir); !backend.IsNoSpace(err) {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
		if err := judgeAfter(store, m.Dir, contents, false); err != nil {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
	}
}

// The next import uses the content that an interrupted import stored.
func TestNextImportUsesWhatIsThere(t *testing.T) {
	t.Parallel()
	m, base, _ := twoDays(t)
	added := func(be backend.Backend) int64 {
		r := mustOpen(t, be, seed(30))
		return mustImport(t, r, m.Dir, Options{Workers: 1}).Snapshot.StoredBytes
	}
	alone := added(base.Clone())
	store := base.Clone()
	last := fault.On(fault.Put, "snapshots/", fault.Once(1, fault.ErrInjected))
	if err := runImport(fault.New(store, last), m.Dir); !errors.Is(err, fault.ErrInjected) {
		t.Fatal(err)
	}
	if again := added(store); again > alone/20 {
		t.Errorf("the next import added %d bytes, %d without interruption", again, alone)
	}
}

// A canceled import makes no snapshot, and says that it was canceled.
func TestImportCanceled(t *testing.T) {
	t.Parallel()
	m, base, contents := twoDays(t)
	for _, phase := range []string{"index/", "snapshots/", "packs/"} {
		store := base.Clone()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		plan := func(c fault.Call) fault.Action {
			if strings.HasPrefix(c.Name, phase) {
				cancel()
			}
			return fault.Action{}
		}
		be := fault.New(store)
		r, err := repo.Open(t.Context(), be, repotest.Secret, options(40))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.LoadIndex(t.Context()); err != nil {
			t.Fatal(err)
		}
		be.SetPlan(plan)
		b, err := mobilesync.Open(t.Context(), m.Dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Import(ctx, r, b, Options{Workers: 1})
		b.Close()
		if phase != "index/" && !errors.Is(err, context.Canceled) {
			t.Errorf("canceled at %s: %v", phase, err)
		}
		if err := judgeAfter(store, m.Dir, contents, err == nil); err != nil {
			t.Errorf("canceled at %s: %v", phase, err)
		}
	}
}
