package repair_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// wrongIndex replaces the index by one that is wrong about a pack.
func wrongIndex(t testing.TB, be *memory.Backend) {
	t.Helper()
	first := true
	repotest.ReplaceIndex(t, be, func(h *pack.Header) {
		if first {
			h.Blocks[0].Chunks[0].ID[0] ^= 1
		}
		first = false
	})
}

func TestRepairIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	for name, harm := range map[string]func(be *memory.Backend){
		"all gone": func(be *memory.Backend) { repotest.Remove(t, be, repotest.FilesIn(t, be, repotest.IndexDir)...) },
		"one gone": func(be *memory.Backend) { repotest.Remove(t, be, repotest.FilesIn(t, be, repotest.IndexDir)[0]) },
		"one flipped": func(be *memory.Backend) {
			repotest.Flip(t, be, repotest.FilesIn(t, be, repotest.IndexDir)[1], 50)
		},
		"wrong": func(be *memory.Backend) { wrongIndex(t, be) },
	} {
		be := base.Clone()
		harm(be)
		before := repotest.Content(t, be)
		r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(90))
		if err != nil {
			t.Fatal(err)
		}
		dry, err := r.RepairIndex(ctx, repo.RepairOptions{DryRun: true})
		if err != nil || !dry.Changed() || !maps.EqualFunc(before, repotest.Content(t, be), bytes.Equal) {
			t.Fatalf("%s: dry run: %+v, %v", name, dry, err)
		}
		if _, err := r.RepairIndex(ctx, repo.RepairOptions{}); err == nil {
			t.Fatal("the repair worked without a lock")
		}
		if err := repotest.RepairIndex(be); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := r.RepairIndex(ctx, repo.RepairOptions{DryRun: true})
		if err != nil || again.Changed() || again.Packs != len(repotest.FilesIn(t, be, repotest.PacksDir)) {
			t.Errorf("%s: again: %+v, %v", name, again, err)
		}
	}
}

// A pack with a damaged header stays in the index, since the index knows its
// blocks.
func TestRepairIndexKeepsPacksWithDamagedHeaders(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1)
	if err := repotest.ForgetDays(context.Background(), repotest.MustOpen(t, be), 1); err != nil {
		t.Fatal(err)
	}
	name := repotest.FilesIn(t, be, repotest.PacksDir)[0]
	repotest.Flip(t, be, name, len(repotest.Content(t, be)[name])-1)
	if _, err := repotest.StoreDay(context.Background(), be, 2); err != nil {
		t.Fatal(err)
	}
	// Damage an index file that lists other packs.
	for _, file := range repotest.FilesIn(t, be, repotest.IndexDir) {
		lists := false
		err := index.OpenFile(repotest.Content(t, be)[file], repotest.Sealer(t, be, crypto.ForIndexes), func(id pack.ID, _ int64, _ pack.Header) {
			lists = lists || repotest.PackName(id) == name
		})
		if err != nil {
			t.Fatal(err)
		}
		if !lists {
			repotest.Flip(t, be, file, 30)
			break
		}
	}
	if err := repotest.RepairIndex(be); err != nil {
		t.Fatal(err)
	}
	rep, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{ReadData: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range rep.Problems {
		if p.File != name {
			t.Errorf("%+v", p)
		}
	}
}

func TestRepairIndexSurvivesEverything(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2)
	repotest.Remove(t, base, repotest.FilesIn(t, base, repotest.IndexDir)[0])
	repotest.Flip(t, base, repotest.FilesIn(t, base, repotest.IndexDir)[0], 40)
	repotest.EveryRepair(t, base, 15, repotest.RepairIndex, func(be *memory.Backend) error { return repotest.Verify(be, 1, 2) })
}

// judgeLost returns an error unless every snapshot can be restored except for the
// lost files, its record names these files, and nothing else is wrong.
func judgeLost(be *memory.Backend, days []int, lost map[int][]string) error {
	ctx := context.Background()
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(2))
	if err != nil {
		return err
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != len(days) {
		return fmt.Errorf("%d snapshots, %v, %w", len(list), damaged, err)
	}
	for i, s := range list {
		day := s.Time.Day()
		want := repotest.Day(day)
		for _, name := range lost[day] {
			delete(want, name)
		}
		got, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = got.Same(want)
		}
		switch {
		case err != nil:
		case day != days[i]:
			err = fmt.Errorf("want day %d", days[i])
		case s.Files != int64(len(want)):
			err = fmt.Errorf("the record says %d files, but there are %d", s.Files, len(want))
		case len(lost[day]) == 0 && (s.Lost != nil || !s.Complete || s.Original != nil && false):
			err = fmt.Errorf("it lost nothing: %+v", s)
		case len(lost[day]) > 0 && (s.Lost == nil || s.Lost.Files != int64(len(lost[day])) || s.Complete || s.Original == nil):
			err = fmt.Errorf("it does not say what it lost: %+v", s)
		}
		for _, name := range lost[day] {
			if err == nil && !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, name) }) {
				err = fmt.Errorf("it does not say that %s is lost: %q", name, s.Problems)
			}
		}
		if err != nil {
			return fmt.Errorf("day %d: %w", day, err)
		}
	}
	rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !rep.Clean() || len(rep.Problems) > 0 || len(rep.Marked) != len(lost) {
		return fmt.Errorf("check: %+v, %w", rep, err)
	}
	return nil
}

func TestRepairPacksAndSnapshots(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	days := []int{1, 2, 3}
	be, lost := repotest.NewDamaged(t, days...)
	if len(lost) == 0 || len(lost[3]) == len(repotest.Day(3)) {
		t.Fatal(lost)
	}
	before := repotest.Content(t, be)
	r := repotest.MustOpen(t, be)
	dry, err := r.RepairPacks(ctx, repo.RepairOptions{DryRun: true})
	if err != nil || len(dry.Damaged) < 2 {
		t.Fatalf("%+v, %v", dry, err)
	}
	drySnapshots, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{Options: repo.RepairOptions{DryRun: true}})
	if err != nil || len(drySnapshots.Repaired) != len(lost) {
		t.Fatalf("%+v, %v", drySnapshots, err)
	}
	after := repotest.Content(t, be)
	for _, name := range repotest.FilesIn(t, be, repotest.ChecksDir) {
		delete(before, name)
		delete(after, name)
	}
	if !maps.EqualFunc(before, after, bytes.Equal) {
		t.Fatal("a dry run changed something")
	}
	for _, d := range dry.Damaged {
		if d.Saved != d.Blocks-1 || d.LostChunks == 0 || d.Text == "" {
			t.Errorf("%+v", d)
		}
	}
	if err := repotest.RepairPacks(be); err != nil {
		t.Fatal(err)
	}
	if now := repotest.LostFiles(t, be); !maps.EqualFunc(now, lost, slices.Equal) {
		t.Fatalf("lost %v, after saving blocks %v", lost, now)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := judgeLost(be, days, lost); err != nil {
		t.Fatal(err)
	}
	// Prune works again, and removes the damaged packs.
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	for _, d := range dry.Damaged {
		if _, err := be.Stat(ctx, repotest.PackName(pack.ID(d.Pack))); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s is still there", d.Pack.Short())
		}
	}
	if err := judgeLost(be, days, lost); err != nil {
		t.Fatalf("after prune: %v", err)
	}
	// Another backup stores the same content again, and the next repair restores
	// everything.
	if _, err := repotest.StoreDay(ctx, be, 3); err != nil {
		t.Fatal(err)
	}
	if err := forgetNewest(ctx, be); err != nil {
		t.Fatal(err)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	list, _, err := repotest.MustOpen(t, be).Snapshots(ctx)
	if err != nil || len(list) != 3 || list[2].Lost != nil || !list[2].Complete || list[2].Files != int64(len(repotest.Day(3))) {
		t.Fatalf("%+v, %v", list[2], err)
	}
	got, err := repotest.Restore(ctx, repotest.MustOpen(t, be), list[2])
	if err == nil {
		err = got.Same(repotest.Day(3))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// forgetNewest forgets the newest of the snapshots that have no parent and were not
// repaired.
func forgetNewest(ctx context.Context, be backend.Backend) error {
	r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(3))
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s *repo.Snapshot) bool { return s.Original != nil || s.Parent != nil })
	last := list[len(list)-1]
	return r.Forget(ctx, last.ID)
}

func TestRepairPacksSurvivesEverything(t *testing.T) {
	t.Parallel()
	be, lost := repotest.NewDamaged(t, 1, 2)
	repotest.EveryRepair(t, be, 20, repotest.RepairPacks, func(be *memory.Backend) error {
		if now := repotest.LostFiles(t, be); !maps.EqualFunc(now, lost, slices.Equal) {
			return fmt.Errorf("lost %v, now %v", lost, now)
		}
		return nil
	})
}

// Packs with one wrong byte get it corrected, and are then as they were.
func TestCorrectionSurvivesEverything(t *testing.T) {
	t.Parallel()
	good := repotest.New(t, 1, 2)
	be := good.Clone()
	want := repotest.Content(t, good)
	for _, name := range repotest.FilesIn(t, be, repotest.PacksDir) {
		b := slices.Clone(want[name])
		b[len(b)/2] ^= 4
		if err := be.Set(name, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Verify(be, 1, 2); err == nil {
		t.Error("a check with all data does not name wrong bytes")
	}
	repotest.EveryRepair(t, be, 10, repotest.RepairPacks, func(be *memory.Backend) error {
		got := repotest.Content(t, be)
		for _, name := range repotest.FilesIn(t, good, repotest.PacksDir) {
			if !slices.Equal(got[name], want[name]) {
				return fmt.Errorf("%s is not as it was", name)
			}
		}
		return repotest.Verify(be, 1, 2)
	})
}

func TestRepairSnapshotsSurvivesEverything(t *testing.T) {
	t.Parallel()
	be, lost := repotest.NewDamaged(t, 1, 2)
	if err := repotest.RepairPacks(be); err != nil {
		t.Fatal(err)
	}
	repotest.EveryRepair(t, be, 20, repotest.RepairSnapshots, func(be *memory.Backend) error { return judgeLost(be, []int{1, 2}, lost) })
}

// If parts of a snapshot's tree are lost, everything that can still be found is
// restored. The lost parts are recorded, and restored if they are found later.
func TestRepairSnapshotsWithoutNodes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	r := repotest.MustOpen(t, base)
	w := r.NewWriter(ctx)
	// A snapshot with many leaves, in packs of their own.
	f := repotest.Files{}
	for i := range 3000 {
		f[fmt.Sprintf("%04d", i)] = []byte("small")
	}
	if _, err := repotest.Store(ctx, r, f, 2); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	r = repotest.MustOpen(t, base)
	broken := 0
	for _, p := range r.Index().Packs() {
		if p.Kind != pack.Metadata || len(p.Blocks) < 2 {
			continue
		}
		be := base.Clone()
		_, b := r.Index().Block(p.Blocks[0])
		repotest.Flip(t, be, repotest.PackName(p.ID), int(b.Offset)+30)
		if err := repotest.RepairAll(be); err != nil {
			t.Fatal(err)
		}
		rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
		if err != nil || !rep.Clean() || len(rep.Marked) == 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		list, _, err := repotest.MustOpen(t, be).Snapshots(ctx)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		s := list[1]
		if s.Lost == nil || len(s.Lost.Nodes) == 0 || s.Files == 0 && len(p.Blocks) > 3 || s.Complete {
			continue
		}
		broken++
		// Put the pack back.
		if err := be.Set(repotest.PackName(p.ID), repotest.Content(t, base)[repotest.PackName(p.ID)]); err != nil {
			t.Fatal(err)
		}
		repotest.Remove(t, be, repotest.FilesIn(t, be, repotest.PrunesDir)...)
		if err := errors.Join(repotest.RepairIndex(be), repotest.RepairSnapshots(be)); err != nil {
			t.Fatal(err)
		}
		list, _, err = repotest.MustOpen(t, be).Snapshots(ctx)
		if err != nil || list[1].Lost != nil || list[1].Files != 3000 {
			t.Fatalf("%+v, %v", list[1], err)
		}
	}
	if broken == 0 {
		t.Error("no snapshot has lost a node")
	}
}

func TestRepairSnapshotsWithDamagedRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	damaged := repotest.FilesIn(t, be, repotest.SnapshotsDir)[0]
	repotest.Flip(t, be, damaged, 60)
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Fatalf("the ledger has a copy of the record: %v", err)
	}
	repotest.RemoveLedger(t, be)
	repotest.Flip(t, be, damaged, 60)
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if n := len(repotest.FilesIn(t, be, repotest.SnapshotsDir)); n != 2 {
		t.Fatalf("%d records", n)
	}
	var rep *repo.SnapshotRepair
	err := repotest.Repair(ctx, be, 94, func(r *repo.Repo) (err error) {
		rep, err = r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{RemoveDamaged: true})
		return err
	})
	if err != nil || rep.Removed != 1 || len(repotest.FilesIn(t, be, repotest.SnapshotsDir)) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
}
