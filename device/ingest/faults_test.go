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
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// twoDays is a repository with day 1 and a folder at day 2.
func twoDays(t *testing.T) (m *foldertest.Folder, base *memory.Backend, pictures map[int]foldertest.Picture) {
	m = foldertest.New(t)
	base = memory.New()
	mustImport(t, createRepo(t, base), m.Dir, Options{})
	pictures = map[int]foldertest.Picture{1: foldertest.Take(t, m.Dir)}
	m.Put("HomeDomain", "Library/Preferences/p3.plist", []byte("changed on day 2"))
	m.Put("HomeDomain", "Library/SMS/sms.db", append([]byte("SQLite format 3\x00"), foldertest.Noise(4, 75<<10)...))
	m.Put("CameraRollDomain", "Media/DCIM/c.jpg", foldertest.Noise(5, 45<<10))
	m.Put("CameraRollDomain", "Media/DCIM/d.jpg", foldertest.Noise(6, 45<<10))
	m.Finish(2)
	pictures[2] = foldertest.Take(t, m.Dir)
	return m, base, pictures
}

// runImport is a process that imports and ends.
func runImport(be backend.Backend, dir string) error { return runImportAs(be, dir, 20) }

// runImportAs is runImport with other randomness: no two processes make a file of
// the same bytes, and name.
func runImportAs(be backend.Backend, dir string, seed byte) error {
	r, err := openRepo(be, seed)
	if err != nil {
		return err
	}
	_, err = importDir(r, dir, Options{Workers: 1})
	return err
}

// judgeAfter wants day 1 whole, day 2 whole if it is there, and the next
// import to succeed whatever happened. Files that a disk has torn may be damaged.
func judgeAfter(be backend.Backend, dir string, pictures map[int]foldertest.Picture, succeeded bool, torn ...string) error {
	days, err := judge(be, pictures, torn...)
	if err != nil {
		return err
	}
	if !slices.Equal(days, []int{1, 2}) && (succeeded || !slices.Equal(days, []int{1})) {
		return fmt.Errorf("snapshots of days %v", days)
	}
	if err := runImportAs(be, dir, 21); err != nil {
		return fmt.Errorf("next import: %w", err)
	}
	if after, err := judge(be, pictures, torn...); err != nil || !slices.Equal(after, append(days, 2)) {
		return fmt.Errorf("after the next import: days %v after %v: %w", after, days, err)
	}
	return nil
}

func TestImportSurvivesEveryFailure(t *testing.T) {
	m, base, pictures := twoDays(t)
	for name, plan := range map[string]func(n int) fault.Plan{
		"refused":        func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) },
		"done, not told": func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) },
		"gone":           func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) },
	} {
		t.Run(name, func(t *testing.T) {
			points, failed := 0, 0
			for n := 1; ; n++ {
				store := base.Clone()
				be := fault.New(store, plan(n))
				err := runImport(be, m.Dir)
				if be.Count() < n {
					if err != nil {
						t.Fatalf("the undisturbed run: %v", err)
					}
					break
				}
				if err != nil && !errors.Is(err, fault.ErrInjected) {
					t.Errorf("fault at operation %d: the cause is lost in %v", n, err)
				}
				points++
				if err != nil {
					failed++
				}
				if err := judgeAfter(store, m.Dir, pictures, err == nil); err != nil {
					t.Fatalf("fault at operation %d: %v", n, err)
				}
			}
			t.Logf("%d points of failure, %d of them noticed", points, failed)
			if points < 15 || failed < points/2 {
				t.Errorf("only %d points, %d noticed", points, failed)
			}
		})
	}
}

func TestImportSurvivesEveryCrash(t *testing.T) {
	importSurvivesEveryCrash(t, false)
}

// A disk that lies about flushing can tear a file: it is named by check, and no
// other.
func TestImportSurvivesTornFiles(t *testing.T) {
	importSurvivesEveryCrash(t, true)
}

func importSurvivesEveryCrash(t *testing.T, torn bool) {
	m, base, pictures := twoDays(t)
	points := 0
	for seed := range uint64(4) {
		for at := 1; ; at++ {
			process := crash.New(base.Clone(), crash.Plan{At: at, Seed: seed, Torn: torn})
			err := runImport(process, m.Dir)
			if !process.Crashed() {
				if err != nil || at < 5 {
					t.Fatalf("the undisturbed run had %d changes: %v", at-1, err)
				}
				break
			}
			if !errors.Is(err, crash.ErrCrashed) {
				t.Fatalf("%s: the import noticed nothing: %v", process.Outcome(), err)
			}
			points++
			be := process.Reboot()
			if err := judgeAfter(be, m.Dir, pictures, false, repotest.Misnamed(t, be)...); err != nil {
				t.Fatalf("%s: %v", process.Outcome(), err)
			}
		}
	}
	t.Logf("%d crashes (torn: %v)", points, torn)
}

// A store that is full at any byte: the failure is known as such, and with
// room again the import goes on.
func TestImportSurvivesFullStore(t *testing.T) {
	m, base, pictures := twoDays(t)
	points := 0
	for room := int64(0); ; room += 10_000 {
		store := base.Clone()
		err := runImport(fault.New(store, fault.Full(room)), m.Dir)
		if err == nil {
			break
		}
		points++
		if !backend.IsNoSpace(err) {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
		if err := judgeAfter(store, m.Dir, pictures, false); err != nil {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
	}
	t.Logf("%d sizes of the store", points)
	if points < 10 {
		t.Errorf("only %d sizes", points)
	}
}

// What an interrupted import stored is used by the next one.
func TestNextImportUsesWhatIsThere(t *testing.T) {
	m, base, _ := twoDays(t)
	added := func(be backend.Backend) int64 {
		r := mustOpen(t, be, 30)
		return mustImport(t, r, m.Dir, Options{Workers: 1}).Snapshot.StoredBytes
	}
	whole := added(base.Clone())
	store := base.Clone()
	last := fault.On(fault.Put, "snapshots/", fault.Once(1, fault.ErrInjected))
	if err := runImport(fault.New(store, last), m.Dir); !errors.Is(err, fault.ErrInjected) {
		t.Fatal(err)
	}
	if again := added(store); again > whole/20 {
		t.Errorf("the next import added %d bytes, %d without interruption", again, whole)
	}
}

// A canceled import makes no snapshot, and says that it was canceled.
func TestImportCanceled(t *testing.T) {
	m, base, pictures := twoDays(t)
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
		if err := judgeAfter(store, m.Dir, pictures, err == nil); err != nil {
			t.Errorf("canceled at %s: %v", phase, err)
		}
	}
}
