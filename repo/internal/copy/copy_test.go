package copy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// copyAll copies the snapshots of some days, or of all days, as the command would: it
// opens and locks both repositories.
func copyAll(ctx context.Context, source, target backend.Backend, opts repo.CopyOptions, days ...int) (*repo.CopyReport, error) {
	fromOpts, toOpts := repotest.SmallPacks(50), repotest.SmallPacks(51)
	fromOpts.Refresh, toOpts.Refresh = -1, -1
	from, err := repo.Open(ctx, source, repotest.Secret, fromOpts)
	if err != nil {
		return nil, err
	}
	to, err := repo.Open(ctx, target, repotest.Secret, toOpts)
	if err != nil {
		return nil, err
	}
	read, err := from.Lock(ctx, repo.LockRead, "copy")
	if err != nil {
		return nil, err
	}
	write, err := to.Lock(ctx, repo.LockWrite, "copy")
	if err != nil {
		return nil, errors.Join(err, read.Release())
	}
	rep, err := copyLocked(ctx, from, to, opts, days)
	return rep, errors.Join(err, write.Release(), read.Release())
}

func copyLocked(ctx context.Context, from, to *repo.Repo, opts repo.CopyOptions, days []int) (*repo.CopyReport, error) {
	if err := from.LoadIndex(ctx); err != nil {
		return nil, err
	}
	if err := to.LoadIndex(ctx); err != nil {
		return nil, err
	}
	list, _, err := from.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	if len(days) > 0 {
		list = slices.DeleteFunc(list, func(s *repo.Snapshot) bool { return !slices.Contains(days, s.Time.Day()) })
	}
	return from.CopyTo(ctx, to, list, opts)
}

func TestCopyKeepsWhatWasEncoded(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2, 3, 4, 5), repotest.NewOther(t)
	untouched, empty := repotest.Content(t, source), len(repotest.Content(t, target))
	dry, err := copyAll(ctx, source, target, repo.CopyOptions{DryRun: true})
	if err != nil || len(repotest.Content(t, target)) != empty {
		t.Fatal(err, "a dry run has changed the target")
	}
	var done, total int64
	rep, err := copyAll(ctx, source, target, repo.CopyOptions{Progress: func(d, t int64) { done, total = d, t }})
	if err != nil || rep.Copied != 5 || rep.Present+rep.Damaged != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep.TakenBlocks < 20 || rep.EncodedBlocks > 0 {
		t.Errorf("%d blocks taken, %d encoded again", rep.TakenBlocks, rep.EncodedBlocks)
	}
	if done != total || done == 0 || dry.Copied != 5 || dry.NewBytes != done {
		t.Errorf("%d of %d bytes, forecast %d", done, total, dry.NewBytes)
	}
	if err := repotest.Verify(target, 1, 2, 3, 4, 5); err != nil {
		t.Fatal(err)
	}
	if a, b := repotest.Size(t, source, repotest.PacksDir), repotest.Size(t, target, repotest.PacksDir); b > a*21/20 {
		t.Errorf("packs of %d bytes became %d", a, b)
	}
	if after := repotest.Content(t, source); len(after) != len(untouched) {
		t.Errorf("the source had %d files and has %d", len(untouched), len(after))
	}
	// Content that was copied is not read again.
	if _, err := repotest.StoreDay(ctx, source, 6); err != nil {
		t.Fatal(err)
	}
	read := int64(0)
	watch := fault.New(source, func(c fault.Call) fault.Action {
		if c.Op == fault.ReadAt && len(c.Name) > len(repotest.PacksDir) && c.Name[:len(repotest.PacksDir)] == repotest.PacksDir {
			read += int64(c.Size)
		}
		return fault.Action{}
	})
	rep, err = copyAll(ctx, watch, target, repo.CopyOptions{})
	if err != nil || rep.Copied != 1 || rep.Present != 5 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if whole := repotest.Size(t, source, repotest.PacksDir); read > whole*2/3 {
		t.Errorf("for one day of six %d bytes were read, all packs have %d", read, whole)
	}
	if err := repotest.Verify(target, 1, 2, 3, 4, 5, 6); err != nil {
		t.Fatal(err)
	}
	before := len(repotest.Content(t, target))
	if rep, err = copyAll(ctx, source, target, repo.CopyOptions{}); err != nil || rep.Present != 6 || len(repotest.Content(t, target)) != before {
		t.Errorf("copied again: %+v, %v", rep, err)
	}
}

// Parents and labels are copied. Snapshots that were copied before are recognized,
// even when they are copied back.
func TestCopyRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	from := repotest.MustOpen(t, source)
	list, _, err := from.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Day 3 follows day 2, and has a tag.
	w := from.NewWriter(ctx)
	s := *list[2]
	s.Parent, s.Tags = &list[1].ID, []string{"before-update"}
	if err := w.Commit(ctx, &s); err != nil {
		t.Fatal(err)
	}
	if err := from.Forget(ctx, list[2].ID); err != nil {
		t.Fatal(err)
	}
	if err := from.KeepDevicePassword(ctx, s.Device.UDID, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := from.KeepDevicePassword(ctx, s.Device.UDID, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if rep, err := copyAll(ctx, source, target, repo.CopyOptions{}, 2, 3); err != nil || rep.Copied != 2 || rep.Passwords != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	to := repotest.MustOpen(t, target)
	got, _, err := to.Snapshots(ctx)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[1].Parent == nil || *got[1].Parent != got[0].ID || got[0].Parent != nil || !slices.Equal(got[1].Tags, s.Tags) {
		t.Errorf("parents %v and %v", got[0].Parent, got[1].Parent)
	}
	if o := got[1].CopiedFrom; o == nil || o.Repository != from.Config().ID || o.Snapshot != s.ID || o.Root != s.Root {
		t.Errorf("copied from %+v", o)
	}
	if kept, err := to.DevicePasswords(ctx, s.Device.UDID); err != nil || len(kept) != 0 {
		t.Errorf("%d passwords came without being asked for, %v", len(kept), err)
	}
	if rep, err := copyAll(ctx, source, target, repo.CopyOptions{Passwords: true}, 3); err != nil || rep.Present != 1 || rep.Passwords != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	kept, err := to.DevicePasswords(ctx, s.Device.UDID)
	if err != nil || len(kept) != 2 || string(kept[0].Password) != "new" {
		t.Errorf("%v, %v", kept, err)
	}
	// A changed record is the same snapshot.
	err = repotest.Repair(ctx, source, 94, func(r *repo.Repo) error { _, err := r.ChangeSnapshot(ctx, &s, repo.Labels{}); return err })
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := copyAll(ctx, source, target, repo.CopyOptions{}, 3); err != nil || rep.Copied > 0 {
		t.Errorf("with other tags: %+v, %v", rep, err)
	}
	// Copy back, and through a third repository.
	if rep, err := copyAll(ctx, target, source, repo.CopyOptions{}); err != nil || rep.Copied > 0 || rep.Present != 2 {
		t.Errorf("back: %+v, %v", rep, err)
	}
	third := memory.New()
	if _, err := repo.Create(ctx, third, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(98)); err != nil {
		t.Fatal(err)
	}
	if rep, err := copyAll(ctx, target, third, repo.CopyOptions{}); err != nil || rep.Copied != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep, err := copyAll(ctx, source, third, repo.CopyOptions{}, 2, 3); err != nil || rep.Copied > 0 {
		t.Errorf("again from the first repository: %+v, %v", rep, err)
	}
	if _, err := copyAll(ctx, source, source.Clone(), repo.CopyOptions{}); !errors.Is(err, repo.ErrSameRepository) {
		t.Errorf("into a mirror: %v", err)
	}
}

// Two imports of one backup are two snapshots. Both are copied, each with its labels,
// also if one was copied before or was forgotten.
func TestCopySecondImport(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	source := repotest.New(t, 1)
	r := repotest.MustOpen(t, source)
	s, err := repotest.FindDay(ctx, r, 1)
	if err != nil {
		t.Fatal(err)
	}
	before := repotest.NewOther(t)
	if rep, err := copyAll(ctx, source, before, repo.CopyOptions{}); err != nil || rep.Copied != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	second := *s
	second.Tags, second.Note, second.Parent = []string{"again"}, "the second import", &s.ID
	if err := r.NewWriter(ctx).Commit(ctx, &second); err != nil {
		t.Fatal(err)
	}
	labels := func(be backend.Backend) (out []string) {
		list, _, err := repotest.MustOpen(t, be).Snapshots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			out = append(out, fmt.Sprintf("%v %s", s.Tags, s.Note))
		}
		slices.Sort(out)
		return out
	}
	want := []string{"[] ", "[again] the second import"}
	for name, target := range map[string]*memory.Backend{"both": repotest.NewOther(t), "the second": before.Clone()} {
		size := repotest.Size(t, target, repotest.PacksDir)
		if _, err := copyAll(ctx, source, target, repo.CopyOptions{}); err != nil || !slices.Equal(labels(target), want) {
			t.Errorf("%s: %q, %v", name, labels(target), err)
		}
		if size > 0 && repotest.Size(t, target, repotest.PacksDir) > size {
			t.Errorf("%s: content was stored twice", name)
		}
		rep, err := copyAll(ctx, source, target, repo.CopyOptions{})
		if err != nil || rep.Present != 2 {
			t.Errorf("%s, again: %+v, %v", name, rep, err)
		}
		if rep, err := copyAll(ctx, target, source, repo.CopyOptions{}); err != nil || rep.Present != 2 {
			t.Errorf("%s, back: %+v, %v", name, rep, err)
		}
	}
	if err := r.Forget(ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	if rep, err := copyAll(ctx, source, before, repo.CopyOptions{}); err != nil || rep.Copied != 1 || !slices.Equal(labels(before), want) {
		t.Errorf("the first was forgotten: %+v, %q, %v", rep, labels(before), err)
	}
}

// Deltas whose bases are not copied are stored in full.
func TestCopyWithoutBases(t *testing.T) {
	t.Parallel()
	for _, days := range [][]int{{5}, {2, 4}, {5, 1}} {
		source, target := repotest.New(t, 1, 2, 3, 4, 5), repotest.NewOther(t)
		for _, day := range days {
			rep, err := copyAll(context.Background(), source, target, repo.CopyOptions{}, day)
			if err != nil || rep.Copied != 1 {
				t.Fatalf("%+v, %v", rep, err)
			}
		}
		slices.Sort(days)
		if err := repotest.Verify(target, days...); err != nil {
			t.Errorf("days %v: %v", days, err)
		}
	}
}

// The target has content of its own, which it has cut and encoded itself.
func TestCopyIntoAFullRepository(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	for _, day := range []int{2, 4} {
		r, err := repotest.Open(ctx, target, repotest.Secret, repotest.SmallPacks(60+byte(day)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Store(ctx, r, repotest.Day(day), day); err != nil {
			t.Fatal(err)
		}
	}
	before := repotest.Size(t, target, repotest.PacksDir)
	if rep, err := copyAll(ctx, source, target, repo.CopyOptions{}, 1, 3); err != nil || rep.Copied != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := repotest.Verify(target, 1, 2, 3, 4); err != nil {
		t.Error(err)
	}
	if added := repotest.Size(t, target, repotest.PacksDir) - before; added > repotest.Size(t, source, repotest.PacksDir)*3/4 {
		t.Errorf("%d bytes were added, the source has %d", added, repotest.Size(t, source, repotest.PacksDir))
	}
}

func judgeCopy(source backend.Backend, be *memory.Backend) error {
	v, err := repotest.Examine(be, repotest.Secret)
	if err != nil {
		return err
	}
	if !v.Report.Clean() || len(v.Report.Problems) > 0 || len(v.Damaged) > 0 {
		return fmt.Errorf("check: %+v %v", v.Report, v.Damaged)
	}
	// A killed run does not prevent the next one.
	r, err := repo.Open(context.Background(), be, repotest.Secret, repotest.SmallPacks(3))
	if err != nil {
		return err
	}
	if _, err := r.RemoveLocks(context.Background(), func(repo.LockInfo) bool { return true }); err != nil {
		return err
	}
	if _, err := copyAll(context.Background(), source, be, repo.CopyOptions{}); err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	return repotest.Verify(be, 1, 2, 3)
}

func TestCopySurvivesEveryFault(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	if _, err := copyAll(context.Background(), source, target, repo.CopyOptions{}, 1); err != nil {
		t.Fatal(err)
	}
	untouched := repotest.Content(t, source)
	run := func(be backend.Backend) error {
		_, err := copyAll(context.Background(), source, be, repo.CopyOptions{})
		return err
	}
	repotest.EveryFault(t, repotest.Run{Base: target, Do: run, Least: 15, Want: 6}, func(be *memory.Backend, _ error) error { return judgeCopy(source, be) })
	repotest.EveryCrash(t, repotest.Run{Base: target, Do: run, Least: 5, Want: 6}, func(be *memory.Backend) error { return judgeCopy(source, be) })
	// The source has not changed, except for locks of killed processes.
	for name, b := range repotest.Content(t, source) {
		if _, was := untouched[name]; !was && name[:len(repotest.LocksDir)] != repotest.LocksDir || was && !bytes.Equal(b, untouched[name]) {
			t.Errorf("%s has changed in the source", name)
		}
	}
}

func TestCopyFromAFailingSource(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	untouched := repotest.Content(t, source)
	var after *memory.Backend
	repotest.EveryFault(t, repotest.Run{Base: source, Do: func(be backend.Backend) error {
		after = target.Clone()
		_, err := copyAll(context.Background(), be, after, repo.CopyOptions{})
		return err
	}, Least: 15, Want: 6},
		func(be *memory.Backend, _ error) error {
			now := repotest.Content(t, be)
			for name, b := range untouched {
				if !bytes.Equal(now[name], b) {
					return fmt.Errorf("%s has changed in the source", name)
				}
			}
			return judgeCopy(source, after)
		})
}

// A snapshot that cannot be read does not prevent others from being copied.
func TestCopyFromADamagedSource(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	damaged := 0
	base := repotest.New(t, 1, 2, 3)
	for _, name := range repotest.FilesIn(t, base, repotest.PacksDir) {
		source, target := base.Clone(), repotest.NewOther(t)
		b := bytes.Clone(repotest.Content(t, source)[name])
		for i := 20; i < len(b); i += 300 {
			b[i] ^= 1
		}
		if err := errors.Join(source.Delete(ctx, name), source.Put(ctx, name, b)); err != nil {
			t.Fatal(err)
		}
		rep, err := copyAll(ctx, source, target, repo.CopyOptions{})
		if rep.Damaged > 0 != errors.Is(err, repo.ErrDamaged) || rep.Copied+rep.Damaged != 3 || err != nil && !errors.Is(err, repo.ErrDamaged) {
			t.Fatalf("%s: %+v, %v", name, rep, err)
		}
		damaged += rep.Damaged
		v, err := repotest.Examine(target, repotest.Secret)
		if err != nil || len(v.Days) != rep.Copied || !v.Report.Clean() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if damaged == 0 {
		t.Error("no damage did any harm")
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	run := repotest.Run{Base: target, Want: 6, Do: func(be backend.Backend) error {
		_, err := copyAll(context.Background(), source, be, repo.CopyOptions{})
		return err
	}}
	for _, n := range run.Steps(t) {
		ctx, cancel := context.WithCancel(context.Background())
		be := target.Clone()
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n {
				cancel()
			}
			return fault.Action{}
		})
		_, err := copyAll(ctx, source, store, repo.CopyOptions{})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
		if err := judgeCopy(source, be); err != nil {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
	}
}
