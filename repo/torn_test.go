package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// rigJob is a run of a program that changes a repository of days 1 to 3, and ends
// the same way when it is run again.
type rigJob struct {
	name string
	run  func(be backend.Backend) error
	may  []int // days that may be gone after it
	adds int   // the day that it stores, 0 for none
	// begin, if not nil, is what happened to the repository before, and keeps
	// what must not be lost of it in spite of everything.
	begin func(be backend.Backend) error
	keeps func(be backend.Backend) error
}

// jobs are all that can be done to a repository. What has a judge of its own in
// another test has this one in addition.
func jobs(t *testing.T) []rigJob {
	ctx := context.Background()
	runs := byte(0)
	with := func(kind LockKind, do func(r *Repo) error) func(be backend.Backend) error {
		return func(be backend.Backend) error {
			// Two runs never make a file of the same bytes, and name.
			runs++
			o := tinyOptions(runs)
			o.Refresh = -1
			r, err := Open(ctx, be, testSecret, o)
			if err != nil {
				return err
			}
			l, err := r.Lock(ctx, kind, "job")
			if err != nil {
				return err
			}
			err = r.LoadIndex(ctx)
			if err == nil {
				err = do(r)
			}
			return errors.Join(err, l.Release())
		}
	}
	label := func(labels Labels) func(be backend.Backend) error {
		return with(LockWrite, func(r *Repo) error {
			s, err := dayOf(ctx, r, 1)
			if err == nil {
				_, err = r.ChangeSnapshot(ctx, s, labels)
			}
			return err
		})
	}
	source := otherKeys(t, 3, 4)
	return []rigJob{
		{name: "store", run: with(LockWrite, func(r *Repo) error {
			s, err := dayOf(ctx, r, 3)
			if err == nil {
				_, err = storeWithParent(ctx, r, tinyFiles(4), 4, s)
			}
			return err
		}), adds: 4},
		{name: "continue", run: with(LockWrite, func(r *Repo) error { return goOn(ctx, r) }), adds: 4, begin: with(LockWrite, func(r *Repo) error {
			u, err := r.NewUnfinished(UnfinishedBackup, phoneUDID)
			if err != nil {
				return err
			}
			return receive(ctx, r, u, arrived[0], tinyFiles(4)[arrived[0]])
		}), keeps: keepsArrived},
		{name: "forget", run: with(LockWrite, func(r *Repo) error { return forgetDays(ctx, r, []int{1, 2}) }), may: []int{1, 2}},
		{name: "prune", run: with(LockPrune, func(r *Repo) error {
			err := forgetDays(ctx, r, []int{1, 2})
			if err == nil {
				_, err = r.Prune(ctx, everything)
			}
			return err
		}), may: []int{1, 2}},
		{name: "tag", run: label(Labels{Tags: []string{"weekly"}})},
		{name: "pin", run: label(Labels{Pin: &Pin{Reason: "why"}})},
		{name: "note", run: label(Labels{Note: "note"})},
		{name: "add a key", run: with(LockWrite, func(r *Repo) error {
			_, err := r.AddKey(ctx, otherSecret, testInfo)
			if errors.Is(err, ErrKeyExists) {
				return nil // by the run that died
			}
			return err
		})},
		{name: "keep a password", run: with(LockWrite, func(r *Repo) error { return r.KeepDevicePassword(ctx, phoneUDID, []byte("password")) })},
		{name: "break off", run: with(LockWrite, func(r *Repo) error {
			u, err := r.NewUnfinished(UnfinishedBackup, phoneUDID)
			if err != nil {
				return err
			}
			return receive(ctx, r, u, "bb/arrived", noise(9, 50<<10))
		})},
		{name: "parity", run: with(LockWrite, func(r *Repo) error { _, err := r.RefreshParity(ctx, 50_00, nil); return err })},
		{name: "check", run: with(LockRead, func(r *Repo) error { _, err := r.Check(ctx, CheckOptions{ReadData: 1}); return err })},
		{name: "reserve", run: with(LockWrite, func(r *Repo) error { return r.MakeReserve(ctx) })},
		{name: "copy", run: with(LockWrite, func(r *Repo) error {
			from, err := openWith(ctx, source, otherSecret, tinyOptions(98))
			if err != nil {
				return err
			}
			list, _, err := from.Snapshots(ctx)
			if err == nil {
				_, err = from.CopyTo(ctx, r, list, CopyOptions{})
			}
			return err
		})},
		{name: "repair index", run: with(LockExclusive, func(r *Repo) error { _, err := r.RepairIndex(ctx, RepairOptions{}); return err })},
		{name: "repair packs", run: with(LockExclusive, func(r *Repo) error { _, err := r.RepairPacks(ctx, RepairOptions{}); return err })},
		{name: "repair snapshots", run: with(LockExclusive, func(r *Repo) error { _, err := r.RepairSnapshots(ctx, SnapshotRepairOptions{}); return err })},
	}
}

// arrived are files of day 4 that a device sends before its backup breaks off,
// and when that is taken up.
var arrived = []string{"bb/new0", "bb/new1", "ee/settings0"}

// goOn is a run that takes up a broken off backup of day 4, if there is one: it
// receives two more files, each with a record that replaces the one before, and
// then makes a snapshot of those that the record has and of all others.
func goOn(ctx context.Context, r *Repo) error {
	list, _, err := r.Unfinished(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		u, err := r.NewUnfinished(UnfinishedBackup, phoneUDID)
		if err != nil {
			return err
		}
		list = append(list, u)
	}
	u := list[0]
	all := tinyFiles(4)
	for _, path := range arrived[1:] {
		if err := receive(ctx, r, u, path, all[path]); err != nil {
			return err
		}
	}
	has := map[string]tree.Content{}
	if err := r.WalkUnfinished(ctx, u, func(e *tree.Entry) error { has[e.Path] = e.Content; return nil }); err != nil {
		return err
	}
	w := r.NewWriter(ctx)
	defer w.Close()
	w.Continue(u.Stats())
	lane := w.NewContentWriter()
	b := tree.NewBuilder(w.SaveNode, nil)
	s := &Snapshot{Time: time.Date(2026, 1, 4, 8, 0, 0, 0, time.UTC), Device: Device{UDID: phoneUDID}, Complete: true}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		content, ok := has[path]
		if !ok {
			if content, err = lane.Store(ctx, bytes.NewReader(all[path]), nil); err != nil {
				return err
			}
		}
		if err := b.Add(ctx, &tree.Entry{Path: path, Mode: 0o644, Content: content}); err != nil {
			return err
		}
		s.Files++
		s.Bytes += content.Size
	}
	if err := lane.Flush(ctx); err != nil {
		return err
	}
	if s.Root, err = b.Finish(ctx); err != nil {
		return err
	}
	if err := w.Commit(ctx, s); err != nil {
		return err
	}
	return r.RemoveUnfinished(ctx, u)
}

// keepsArrived wants the snapshot of day 4, or a record of the run with the file
// that had arrived before it, and of the others what it says that it has.
func keepsArrived(be backend.Backend) error {
	ctx := context.Background()
	r, err := openWith(ctx, be, testSecret, tinyOptions(3))
	if err != nil {
		return err
	}
	if _, err := dayOf(ctx, r, 4); err == nil {
		return nil
	}
	list, _, err := r.Unfinished(ctx)
	if err != nil || len(list) != 1 {
		return fmt.Errorf("unfinished runs: %d, %w", len(list), err)
	}
	got, err := received(ctx, r, list[0])
	if err != nil {
		return fmt.Errorf("what had arrived: %w", err)
	}
	if _, ok := got[arrived[0]]; !ok {
		return fmt.Errorf("%s had arrived, and is gone", arrived[0])
	}
	for path, b := range got {
		if b != string(tinyFiles(4)[path]) {
			return fmt.Errorf("%s is not what had arrived", path)
		}
	}
	return nil
}

// judgeJob wants every snapshot that is listed to be whole, all days to be
// there but those that may have gone, the one that the job stores once it is
// done, and no word of damage but of the files in bad.
func judgeJob(be *memory.Backend, j rigJob, done bool, bad []string) error {
	v, err := judge(be, testSecret)
	if err != nil {
		return err
	}
	for _, day := range []int{1, 2, 3} {
		if !slices.Contains(v.days, day) && !slices.Contains(j.may, day) {
			return fmt.Errorf("day %d is gone: %v", day, v.days)
		}
	}
	if done && j.adds != 0 && !slices.Contains(v.days, j.adds) {
		return fmt.Errorf("day %d was not stored: %v", j.adds, v.days)
	}
	if len(v.report.Suffering) > 0 {
		return fmt.Errorf("check: %+v", v.report)
	}
	for _, p := range v.report.Problems {
		if !slices.Contains(bad, p.File) {
			return fmt.Errorf("check names %+v, torn are %v", p, bad)
		}
	}
	return nil
}

// again runs a job once more, after a repair if it asks for that.
func (j rigJob) again(be *memory.Backend) error {
	// What the dead have left: "snap unlock --remove-all".
	removeAllLocks(be)
	err := j.run(be)
	if errors.Is(err, ErrDamaged) {
		if err := repairAll(be); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		err = j.run(be)
	}
	if err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	return nil
}

func removeAllLocks(be *memory.Backend) {
	ctx := context.Background()
	_ = be.List(ctx, locksDir, func(f backend.Info) error { return be.Delete(ctx, f.Name) })
}

// Everything that changes a repository may fail or die anywhere, also on a disk
// that lies about flushing: nothing is lost, check names what is torn and no
// more, and the next run ends well.
func TestEveryJobSurvivesEverything(t *testing.T) {
	for _, j := range jobs(t) {
		t.Run(strings.ReplaceAll(j.name, " ", "_"), func(t *testing.T) {
			base := chainRepo(t, 1, 2, 3)
			if j.begin != nil {
				if err := j.begin(base); err != nil {
					t.Fatal(err)
				}
			}
			judge := func(be *memory.Backend) error {
				bad := misnamed(t, be)
				if err := judgeJob(be, j, false, bad); err != nil {
					return err
				}
				if j.keeps != nil {
					if err := j.keeps(be); err != nil {
						return err
					}
				}
				if err := j.again(be); err != nil {
					return err
				}
				return judgeJob(be, j, true, bad)
			}
			fails, dies := sampled(t, 15), sampled(t, 6)
			switch {
			case os.Getenv("SNAP_TEST_HUGE") != "": // takes minutes
				fails, dies = eachOne, eachOne
			case testing.Short():
				fails, dies = sampled(t, 30), sampled(t, 5)
			}
			someOperations(t, fails, 0, base, j.run, func(be *memory.Backend, _ error) error { return judge(be) })
			someCrashes(t, dies, false, 0, base, j.run, judge)
			someCrashes(t, dies, true, 0, base, j.run, judge)
		})
	}
}

// Bits rot in records that no snapshot needs, too: check names those whose loss
// would be felt, and nothing else suffers of any of them.
func TestRotOfEveryRecord(t *testing.T) {
	ctx := context.Background()
	base := loadGoldenFrom(t, recordsDir)
	named := map[string]int{}
	all := content(t, base)
	rng := rand.New(rand.NewPCG(damageSeed, 3))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kind := kindOf(name)
		if slices.Contains([]string{"config", "keys", "packs", "index", "snapshots"}, kind) {
			continue // other tests have these
		}
		damaged := damages(rng, all[name])
		damaged["gone"] = nil
		for how, b := range damaged {
			be := base.Clone()
			removeAll(t, be, name)
			if how != "gone" {
				if err := be.Set(name, bytes.Clone(b)); err != nil {
					t.Fatal(err)
				}
			}
			r := openRecords(t, be)
			rep, err := r.Check(ctx, CheckOptions{ReadData: 1, DryRun: true})
			if err != nil || len(rep.Suffering) > 0 {
				t.Fatalf("%s %s: %+v, %v", name, how, rep, err)
			}
			if slices.ContainsFunc(rep.Problems, func(p Problem) bool { return p.File == name }) {
				named[kind]++
			} else if how != "gone" && slices.Contains([]string{"secrets", "runs", "parity", "healing"}, kind) {
				t.Errorf("%s %s: check does not name it", name, how)
			}
			// A prune loses nothing, whatever it makes of that.
			err = func() error {
				l, err := r.Lock(ctx, LockPrune, "prune")
				if err != nil {
					return err
				}
				_, err = r.Prune(ctx, everything)
				return errors.Join(err, l.Release())
			}()
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrLocked) {
				t.Errorf("%s %s: prune: %v", name, how, err)
			}
			list, bad, err := openRecords(t, be).Snapshots(ctx)
			if err != nil || len(bad) > 0 || len(list) != 3 {
				t.Fatalf("%s %s: after a prune %d snapshots, %v, %v", name, how, len(list), bad, err)
			}
			for _, s := range list {
				f, err := restore(ctx, openRecords(t, be), s)
				if err == nil {
					err = sameFiles(f, recordFiles(s.Time.Day()))
				}
				if err != nil {
					t.Errorf("%s %s: after a prune, day %d: %v", name, how, s.Time.Day(), err)
				}
			}
		}
	}
	t.Logf("check names %v", named)
}
