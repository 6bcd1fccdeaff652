package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// repairTiny is one run of a program that repairs. If it is killed, others can
// tell.
func repairTiny(ctx context.Context, be backend.Backend, seed byte, run func(r *Repo) error) error {
	o := tinyOptions(seed)
	dead := process.Current()
	dead.Started += "0"
	o.Owner, o.Refresh = &dead, -1
	r, err := Open(ctx, be, testSecret, o)
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, LockExclusive, "repair")
	if err != nil {
		return err
	}
	err = run(r)
	return errors.Join(err, l.Release())
}

func repairIndex(be backend.Backend) error {
	ctx := context.Background()
	return repairTiny(ctx, be, 91, func(r *Repo) error { _, err := r.RepairIndex(ctx, RepairOptions{}); return err })
}

func repairPacks(be backend.Backend) error {
	ctx := context.Background()
	return repairTiny(ctx, be, 92, func(r *Repo) error { _, err := r.RepairPacks(ctx, RepairOptions{}); return err })
}

func repairSnapshots(be backend.Backend) error {
	ctx := context.Background()
	return repairTiny(ctx, be, 93, func(r *Repo) error { _, err := r.RepairSnapshots(ctx, SnapshotRepairOptions{}); return err })
}

func flipBit(t testing.TB, be *memory.Backend, name string, at int) {
	t.Helper()
	b := bytes.Clone(content(t, be)[name])
	b[at%len(b)] ^= 0x10
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
}

// wrongIndex replaces the index by one that says something wrong of a pack.
func wrongIndex(t testing.TB, be *memory.Backend) {
	t.Helper()
	first := true
	lyingIndex(t, be, func(h *pack.Header) {
		if first {
			h.Blocks[0].Chunks[0].ID[0] ^= 1
		}
		first = false
	})
}

// lyingIndex replaces the index by one in which something is different.
func lyingIndex(t testing.TB, be *memory.Backend, lie func(*pack.Header)) {
	t.Helper()
	ctx := context.Background()
	r := open(t, be)
	old := filesIn(t, be, indexDir)
	f := &index.File{}
	for _, p := range r.index.Packs() {
		h := headerOf(r.index, p)
		lie(&h)
		f.Add(p.ID, p.Size, &h)
	}
	b, err := f.Seal(r.indexes)
	if err == nil {
		_, err = r.putNamed(ctx, indexDir, b)
	}
	for _, name := range old {
		err = errors.Join(err, be.Delete(ctx, name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func removeAll(t testing.TB, be *memory.Backend, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRepairIndex(t *testing.T) {
	ctx := context.Background()
	base := chainRepo(t, 1, 2, 3)
	for name, harm := range map[string]func(be *memory.Backend){
		"all gone": func(be *memory.Backend) { removeAll(t, be, filesIn(t, be, indexDir)...) },
		"one gone": func(be *memory.Backend) { removeAll(t, be, filesIn(t, be, indexDir)[0]) },
		"one flipped": func(be *memory.Backend) {
			flipBit(t, be, filesIn(t, be, indexDir)[1], 50)
		},
		"wrong": func(be *memory.Backend) { wrongIndex(t, be) },
	} {
		be := base.Clone()
		harm(be)
		before := content(t, be)
		r, err := Open(ctx, be, testSecret, tinyOptions(90))
		if err != nil {
			t.Fatal(err)
		}
		dry, err := r.RepairIndex(ctx, RepairOptions{DryRun: true})
		if err != nil || !dry.Changed() || !maps.EqualFunc(before, content(t, be), bytes.Equal) {
			t.Fatalf("%s: dry run: %+v, %v", name, dry, err)
		}
		if _, err := r.RepairIndex(ctx, RepairOptions{}); err == nil {
			t.Fatal("it works without a lock")
		}
		if err := repairIndex(be); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := r.RepairIndex(ctx, RepairOptions{DryRun: true})
		if err != nil || again.Changed() || again.Packs != len(filesIn(t, be, packsDir)) {
			t.Errorf("%s: again: %+v, %v", name, again, err)
		}
	}
}

// A pack that lost its header is still listed, since the index knows it.
func TestRepairIndexKeepsWhatHeadersLost(t *testing.T) {
	be := tinyRepo(t, 1)
	removeAll(t, be, filesIn(t, tinyRepo(t, 1), snapshotsDir)...)
	name := filesIn(t, be, packsDir)[0]
	flipBit(t, be, name, len(content(t, be)[name])-1)
	if _, err := storeTiny(context.Background(), be, 2); err != nil {
		t.Fatal(err)
	}
	// Of an index file that lists other packs.
	r := open(t, be)
	for _, file := range filesIn(t, be, indexDir) {
		lists := false
		err := index.OpenFile(content(t, be)[file], r.indexes, func(id pack.ID, _ int64, _ pack.Header) {
			lists = lists || packName(id) == name
		})
		if err != nil {
			t.Fatal(err)
		}
		if !lists {
			flipBit(t, be, file, 30)
			break
		}
	}
	if err := repairIndex(be); err != nil {
		t.Fatal(err)
	}
	rep, err := open(t, be).Check(context.Background(), CheckOptions{ReadData: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range rep.Problems {
		if p.File != name {
			t.Errorf("%+v", p)
		}
	}
}

// eachRepair lets a repair fail and die everywhere; what it leaves is mended by
// the next one.
func eachRepair(t *testing.T, base *memory.Backend, least int, repair func(backend.Backend) error, judge func(*memory.Backend) error) {
	t.Helper()
	again := func(be *memory.Backend) error {
		if err := repair(be); err != nil {
			return fmt.Errorf("next run: %w", err)
		}
		return judge(be)
	}
	everyOperation(t, least, base, repair, func(be *memory.Backend, _ error) error { return again(be) })
	everyCrash(t, false, 2, base, repair, again)
}

func TestRepairIndexSurvivesEverything(t *testing.T) {
	base := chainRepo(t, 1, 2)
	removeAll(t, base, filesIn(t, base, indexDir)[0])
	flipBit(t, base, filesIn(t, base, indexDir)[0], 40)
	eachRepair(t, base, 15, repairIndex, func(be *memory.Backend) error { return judgeClean(be, testSecret, 1, 2) })
}

// harmed is a store that lost a part of its content: a bit in each of some packs,
// and what is lost by that, by day.
func harmed(t testing.TB, days ...int) (be *memory.Backend, lost map[int][]string) {
	t.Helper()
	be = chainRepo(t, days...)
	r := open(t, be)
	n := 0
	for _, p := range r.index.Packs() {
		if p.Kind != pack.Content || len(p.Blocks) < 2 {
			continue
		}
		if n++; n%2 == 0 {
			continue
		}
		_, b := r.index.Block(p.Blocks[0])
		flipBit(t, be, packName(p.ID), int(b.Offset)+20)
	}
	return be, lostFiles(t, be)
}

// lostFiles says which files cannot be had.
func lostFiles(t testing.TB, be backend.Backend) map[int][]string {
	t.Helper()
	ctx := context.Background()
	rep, err := open(t, be).Check(ctx, CheckOptions{ReadData: 1})
	if err != nil {
		t.Fatal(err)
	}
	lost := map[int][]string{}
	for _, s := range rep.Suffering {
		lost[s.Time.Day()] = s.Names
	}
	return lost
}

// judgeLost wants every snapshot to come back without the lost files, which its
// record names, and a repository in which nothing else is wrong.
func judgeLost(be *memory.Backend, days []int, lost map[int][]string) error {
	ctx := context.Background()
	r, err := openWith(ctx, be, testSecret, tinyOptions(2))
	if err != nil {
		return err
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != len(days) {
		return fmt.Errorf("%d snapshots, %v, %w", len(list), damaged, err)
	}
	for i, s := range list {
		day := s.Time.Day()
		want := tinyFiles(day)
		for _, name := range lost[day] {
			delete(want, name)
		}
		got, err := restore(ctx, r, s)
		if err == nil {
			err = sameFiles(got, want)
		}
		switch {
		case err != nil:
		case day != days[i]:
			err = fmt.Errorf("want day %d", days[i])
		case s.Files != int64(len(want)):
			err = fmt.Errorf("record of %d files, there are %d", s.Files, len(want))
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
	rep, err := r.Check(ctx, CheckOptions{ReadData: 1})
	if err != nil || !rep.Clean() || len(rep.Problems) > 0 || len(rep.Marked) != len(lost) {
		return fmt.Errorf("check: %+v, %w", rep, err)
	}
	return nil
}

func repairAll(be backend.Backend) error {
	if err := repairPacks(be); err != nil {
		return err
	}
	return repairSnapshots(be)
}

func TestRepairPacksAndSnapshots(t *testing.T) {
	ctx := context.Background()
	days := []int{1, 2, 3}
	be, lost := harmed(t, days...)
	if len(lost) == 0 || len(lost[3]) == len(tinyFiles(3)) {
		t.Fatal(lost)
	}
	before := content(t, be)
	r := open(t, be)
	dry, err := r.RepairPacks(ctx, RepairOptions{DryRun: true})
	if err != nil || len(dry.Damaged) < 2 {
		t.Fatalf("%+v, %v", dry, err)
	}
	drySnapshots, err := r.RepairSnapshots(ctx, SnapshotRepairOptions{RepairOptions: RepairOptions{DryRun: true}})
	if err != nil || len(drySnapshots.Repaired) != len(lost) {
		t.Fatalf("%+v, %v", drySnapshots, err)
	}
	after := content(t, be)
	for _, name := range filesIn(t, be, checksDir) {
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
	if err := repairPacks(be); err != nil {
		t.Fatal(err)
	}
	if now := lostFiles(t, be); !maps.EqualFunc(now, lost, slices.Equal) {
		t.Fatalf("lost %v, after saving blocks %v", lost, now)
	}
	if err := repairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := judgeLost(be, days, lost); err != nil {
		t.Fatal(err)
	}
	// Prune works again, and takes the damaged packs.
	if _, err := pruneTiny(ctx, be, everything); err != nil {
		t.Fatal(err)
	}
	for _, d := range dry.Damaged {
		if _, err := be.Stat(ctx, packName(pack.ID(d.Pack))); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s is still there", d.Pack.Short())
		}
	}
	if err := judgeLost(be, days, lost); err != nil {
		t.Fatalf("after prune: %v", err)
	}
	// The same content comes with another backup: it is stored anew, and the next
	// repair puts everything back.
	if _, err := storeTiny(ctx, be, 3); err != nil {
		t.Fatal(err)
	}
	if err := forgetNewest(ctx, be); err != nil {
		t.Fatal(err)
	}
	if err := repairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	list, _, err := open(t, be).Snapshots(ctx)
	if err != nil || len(list) != 3 || list[2].Lost != nil || !list[2].Complete || list[2].Files != int64(len(tinyFiles(3))) {
		t.Fatalf("%+v, %v", list[2], err)
	}
	got, err := restore(ctx, open(t, be), list[2])
	if err == nil {
		err = sameFiles(got, tinyFiles(3))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// forgetNewest forgets the snapshot that was stored last.
func forgetNewest(ctx context.Context, be backend.Backend) error {
	r, err := Open(ctx, be, testSecret, tinyOptions(3))
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s *Snapshot) bool { return s.Original != nil || s.Parent != nil })
	last := list[len(list)-1]
	return r.Forget(ctx, last.ID)
}

func TestRepairPacksSurvivesEverything(t *testing.T) {
	be, lost := harmed(t, 1, 2)
	eachRepair(t, be, 20, repairPacks, func(be *memory.Backend) error {
		if now := lostFiles(t, be); !maps.EqualFunc(now, lost, slices.Equal) {
			return fmt.Errorf("lost %v, now %v", lost, now)
		}
		return nil
	})
}

func TestRepairSnapshotsSurvivesEverything(t *testing.T) {
	be, lost := harmed(t, 1, 2)
	if err := repairPacks(be); err != nil {
		t.Fatal(err)
	}
	eachRepair(t, be, 20, repairSnapshots, func(be *memory.Backend) error { return judgeLost(be, []int{1, 2}, lost) })
}

// Of a snapshot that lost parts of its list of files, what can still be found
// comes back; the lost parts are noted, and come back should they be found.
func TestRepairSnapshotsWithoutLists(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1)
	r := open(t, base)
	w := r.NewWriter(ctx)
	// A snapshot with many leaves, in packs of their own.
	f := files{}
	for i := range 3000 {
		f[fmt.Sprintf("%04d", i)] = []byte("small")
	}
	if _, err := store(ctx, r, f, 2); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	r = open(t, base)
	broken := 0
	for _, p := range r.index.Packs() {
		if p.Kind != pack.Metadata || len(p.Blocks) < 2 {
			continue
		}
		be := base.Clone()
		_, b := r.index.Block(p.Blocks[0])
		flipBit(t, be, packName(p.ID), int(b.Offset)+30)
		if err := repairAll(be); err != nil {
			t.Fatal(err)
		}
		rep, err := open(t, be).Check(ctx, CheckOptions{ReadData: 1})
		if err != nil || !rep.Clean() || len(rep.Marked) == 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		list, _, err := open(t, be).Snapshots(ctx)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		s := list[1]
		if s.Lost == nil || len(s.Lost.Nodes) == 0 || s.Files == 0 && len(p.Blocks) > 3 || s.Complete {
			continue
		}
		broken++
		// The pack comes back.
		if err := be.Set(packName(p.ID), content(t, base)[packName(p.ID)]); err != nil {
			t.Fatal(err)
		}
		removeAll(t, be, filesIn(t, be, prunesDir)...)
		if err := errors.Join(repairIndex(be), repairSnapshots(be)); err != nil {
			t.Fatal(err)
		}
		list, _, err = open(t, be).Snapshots(ctx)
		if err != nil || list[1].Lost != nil || list[1].Files != 3000 {
			t.Fatalf("%+v, %v", list[1], err)
		}
	}
	if broken == 0 {
		t.Error("no list was broken")
	}
}

func TestRepairSnapshotsWithDamagedRecords(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1, 2)
	flipBit(t, be, filesIn(t, be, snapshotsDir)[0], 60)
	if err := repairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if n := len(filesIn(t, be, snapshotsDir)); n != 2 {
		t.Fatalf("%d records", n)
	}
	var rep *SnapshotRepair
	err := repairTiny(ctx, be, 94, func(r *Repo) (err error) {
		rep, err = r.RepairSnapshots(ctx, SnapshotRepairOptions{RemoveDamaged: true})
		return err
	})
	if err != nil || rep.Removed != 1 || len(filesIn(t, be, snapshotsDir)) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := pruneTiny(ctx, be, everything); err != nil {
		t.Fatal(err)
	}
}
