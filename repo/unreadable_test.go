package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// unreadables are the ways in which one file cannot be read.
var unreadables = map[string]func(name string) fault.Plan{
	"EIO":         func(name string) fault.Plan { return fault.Unreadable(name, syscall.EIO) },
	"EACCES":      func(name string) fault.Plan { return fault.Unreadable(name, syscall.EACCES) },
	"ESTALE":      func(name string) fault.Plan { return fault.Unreadable(name, syscall.ESTALE, fault.ReadAt, fault.Stat) },
	"no length":   func(name string) fault.Plan { return fault.Unreadable(name, syscall.EIO, fault.ReadAt, fault.Stat) },
	"short":       fault.ShortRead,
	"cut":         func(name string) fault.Plan { return fault.Truncate(name, 20) },
	"turned":      func(name string) fault.Plan { return fault.FlipBit(name, 20, 3) },
	"overwritten": func(name string) fault.Plan { return fault.Overwrite(name, 20) },
}

// interrupted says that a read fails once, as by a signal.
func interrupted(name string) fault.Plan {
	return fault.On(fault.ReadAt, name, fault.Once(1, syscall.EINTR))
}

// TestUnreadableFiles makes each file of the golden repository of all kinds unreadable,
// in each way. Everything else is listed, verified and given back. The file is named, and
// nothing is removed that it might need.
func TestUnreadableFiles(t *testing.T) {
	base := loadGoldenFrom(t, recordsDir)
	enterRecords(t, base)
	whole := restoredDays(t, base)
	var names []string
	for name := range repotest.Content(t, base) {
		// Without config or the only key, nothing can be opened.
		if !slices.Contains([]string{"config", "keys", repotest.ReserveName, "mirrored"}, repotest.Folder(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	ways := slices.Sorted(maps.Keys(unreadables))
	for _, i := range faultpoint.Choose(t, len(names)*len(ways), 40) {
		name, way := names[i/len(ways)], ways[i%len(ways)]
		t.Run(way+"_"+strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			t.Parallel()
			testUnreadable(t, base, whole, name, unreadables[way](name))
		})
	}
	for _, name := range names {
		be := fault.New(base.Clone(), interrupted(name))
		if got := restoredDays(t, be); !maps.Equal(got, whole) {
			t.Errorf("%s: a read was interrupted, and %v came back instead of %v", name, got, whole)
		}
	}
}

// enterRecords gives the golden repository, which is older than the ledger, one.
func enterRecords(t *testing.T, be *memory.Backend) {
	t.Helper()
	ctx := context.Background()
	r := openRecords(t, be)
	l, err := r.Lock(ctx, repo.LockWrite, "snap tag")
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(ctx, "latest")
	if err == nil {
		_, err = r.ChangeSnapshot(ctx, s, repo.Labels{Note: recordNote})
	}
	if err := errors.Join(err, l.Release()); err != nil || len(repotest.FilesIn(t, be, repotest.LedgerDir)) == 0 {
		t.Fatal("no ledger: ", err)
	}
}

func testUnreadable(t *testing.T, base *memory.Backend, whole map[string]int, name string, plan fault.Plan) {
	ctx := context.Background()
	inner := base.Clone()
	be := fault.New(inner, plan)
	got := restoredDays(t, be)
	lost := 0
	for file := range whole {
		if got[file] == 0 {
			lost++
		}
	}
	switch dir := repotest.Folder(name); {
	case dir == "packs":
	case dir == "snapshots" && lost <= len(recordFiles(1)): // of one day
	case lost > 0:
		t.Errorf("%d files did not come back", lost)
	}
	r := openRecords(t, be)
	rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	silent := slices.Contains([]string{"locks", "prunes", "checks", "healing"}, repotest.Folder(name)) // of no use to a reader
	if !silent && !slices.Contains(rep.Unreferenced, name) && !slices.ContainsFunc(rep.Problems, func(p repo.Problem) bool { return p.File == name }) {
		t.Errorf("check does not name it: %+v", rep.Problems)
	}
	if _, err := r.RepairIndex(ctx, repo.RepairOptions{DryRun: true}); err != nil {
		t.Errorf("repair index: %v", err)
	}
	if _, err := r.RepairPacks(ctx, repo.RepairOptions{DryRun: true}); err != nil {
		t.Errorf("repair packs: %v", err)
	}
	if _, err := r.HealFromMirror(ctx, base, repo.HealOptions{Options: repo.RepairOptions{DryRun: true}}); err != nil {
		t.Errorf("repair --from: %v", err)
	}
	if err := copiesAll(ctx, r, whole, got); err != nil {
		t.Errorf("copy: %v", err)
	}
	repotest.RemoveAllLocks(inner)
	if _, err := pruneRecords(be); err != nil && !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("prune: %v", err)
	}
	// The file can be read again, on another computer.
	if again := restoredDays(t, inner); !maps.Equal(again, whole) {
		t.Errorf("after a prune, %v can be restored instead of %v", again, whole)
	}
	if runs, damaged, err := openRecords(t, inner).Unfinished(ctx); err != nil || len(runs)+len(damaged) == 0 {
		t.Errorf("after a prune, the unfinished backup is gone: %v, %v", damaged, err)
	}
}

// copiesAll copies all snapshots that can be listed, and returns an error unless those
// that are whole arrive.
func copiesAll(ctx context.Context, r *repo.Repo, whole, got map[string]int) error {
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	want := 0
	for _, s := range list {
		complete := true
		for file := range whole {
			complete = complete && (!strings.HasPrefix(file, fmt.Sprintf("%d/", s.Time.Day())) || got[file] == whole[file])
		}
		if complete {
			want++
		}
	}
	to, err := repo.Create(ctx, memory.New(), []byte("other"), repotest.SlotInfo, recordOptions(70, goldenRecordsNow))
	if err != nil {
		return err
	}
	if err := to.LoadIndex(ctx); err != nil {
		return err
	}
	rep, err := r.CopyTo(ctx, to, list, repo.CopyOptions{})
	if err != nil && !errors.Is(err, repo.ErrDamaged) {
		return err
	}
	if rep.Copied < want {
		return fmt.Errorf("%d snapshots were copied, but %d are whole: %w", rep.Copied, want, err)
	}
	return nil
}

// TestForeignFiles puts files of systems and sync programs into every folder. They are
// passed over and stay.
func TestForeignFiles(t *testing.T) {
	ctx := context.Background()
	be := loadGoldenFrom(t, recordsDir)
	whole := restoredDays(t, be)
	var foreign []string
	for name := range repotest.Content(t, be) {
		dir, last := name[:strings.LastIndexByte(name, '/')+1], name[strings.LastIndexByte(name, '/')+1:]
		for _, f := range []string{"desktop.ini", "._" + last, last + ".sync-conflict-20260101-120000-ABCDEFG", last + " (1)", ".nfs0001", "Thumbs.db", strings.ToUpper(last)} {
			if f = dir + f; backend.ValidName(f) == nil && !slices.Contains(foreign, f) && f != name {
				foreign = append(foreign, f)
			}
		}
	}
	for _, f := range foreign {
		if err := be.Put(ctx, f, []byte("foreign")); err != nil {
			t.Fatal(err)
		}
	}
	if got := restoredDays(t, be); !maps.Equal(got, whole) {
		t.Errorf("%v came back instead of %v", got, whole)
	}
	rep, err := openRecords(t, be).Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range rep.Problems {
		if !strings.HasPrefix(p.File, "healing/") || slices.Contains(foreign, p.File) {
			t.Errorf("check: %+v", p)
		}
	}
	target := memory.New()
	if err := mirrorOnce(be, target); err != nil {
		t.Errorf("mirror: %v", err)
	}
	repotest.RemoveAllLocks(be)
	r := openRecords(t, be)
	l, err := r.Lock(ctx, repo.LockExclusive, "snap repair snapshots")
	if err == nil {
		_, err = r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{RemoveDamaged: true})
		err = errors.Join(err, l.Release())
	}
	if err != nil {
		t.Errorf("repair: %v", err)
	}
	if _, err := pruneRecords(be); err != nil {
		t.Errorf("prune: %v", err)
	}
	left := repotest.Content(t, be)
	for _, f := range foreign {
		if left[f] == nil && !strings.HasPrefix(f, "locks/") {
			t.Errorf("%s was removed", f)
		}
	}
	for name := range repotest.Content(t, target) {
		if slices.Contains(foreign, name) {
			t.Errorf("%s was mirrored", name)
		}
	}
}

func pruneRecords(be backend.Backend) (rep *repo.PruneReport, err error) {
	ctx := context.Background()
	o := recordOptions(60, goldenRecordsNow)
	r, err := repo.Open(ctx, be, []byte(goldenPassword), o)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, repo.LockPrune, "snap prune")
	if errors.Is(err, repo.ErrLocked) {
		return nil, nil // by a lock that cannot be read
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	return r.Prune(ctx, repotest.NoWaste)
}

// restoredDays returns the lengths, plus 1, of all files that come back with the bytes
// that were stored. The keys are the day and the path.
func restoredDays(t *testing.T, be backend.Backend) map[string]int {
	t.Helper()
	ctx := context.Background()
	r := openRecords(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, s := range list {
		err := r.WalkAll(ctx, s, func(e *tree.Entry) error {
			var b writeCounter
			err := r.WriteContent(ctx, &b, &e.Content)
			if err == nil {
				out[fmt.Sprintf("%d/%s", s.Time.Day(), e.Path)] = int(b) + 1
			} else if !errors.Is(err, repo.ErrDamaged) {
				return err
			}
			return nil
		}, func(error) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

type writeCounter int

func (c *writeCounter) Write(p []byte) (int, error) {
	*c += writeCounter(len(p))
	return len(p), nil
}
