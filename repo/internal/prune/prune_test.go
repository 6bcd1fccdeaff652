package prune_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

func TestPruneFreesWhatNothingNeeds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, forget := range [][]int{{}, {1}, {5}, {1, 2, 3}, {2, 4}, {1, 2, 3, 4, 5}} {
		be := repotest.New(t, 1, 2, 3, 4, 5)
		before := repotest.Size(t, be, repotest.PacksDir)
		dry := repotest.NoWaste
		dry.DryRun = true
		copied := be.Clone()
		r, err := repo.Open(ctx, copied, repotest.Secret, repotest.SmallPacks(3))
		if err != nil {
			t.Fatal(err)
		}
		if err := repotest.ForgetDays(ctx, r, forget...); err != nil {
			t.Fatal(err)
		}
		forgotten := len(repotest.Content(t, copied))
		forecast, err := r.Prune(ctx, dry)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(repotest.Content(t, copied)); got != forgotten {
			t.Errorf("forget %v: a dry run has changed the store", forget)
		}
		rep, err := repotest.Prune(ctx, be, repotest.NoWaste, forget...)
		if err != nil {
			t.Fatalf("forget %v: %v", forget, err)
		}
		var left []int
		for day := 1; day <= 5; day++ {
			if !slices.Contains(forget, day) {
				left = append(left, day)
			}
		}
		if err := repotest.Verify(be, left...); err != nil {
			t.Errorf("forget %v: %v", forget, err)
		}
		after := repotest.Size(t, be, repotest.PacksDir)
		freed := before - after
		t.Logf("forget %v: %d to %d bytes, forecast %d; %+v", forget, before, after, forecast.BytesToFree, *rep)
		if diff := freed - forecast.BytesToFree; diff < -forecast.BytesToFree/10-4096 || diff > forecast.BytesToFree/10+4096 {
			t.Errorf("forget %v: freed %d bytes, the forecast was %d", forget, freed, forecast.BytesToFree)
		}
		if freed != rep.FreedBytes-rep.WrittenBytes && rep.WrittenBytes == 0 {
			t.Errorf("forget %v: freed %d bytes, reported %d less %d", forget, freed, rep.FreedBytes, rep.WrittenBytes)
		}
		for _, dir := range []string{repotest.LocksDir, repotest.PrunesDir} {
			if n := repotest.Size(t, be, dir); n > 0 {
				t.Errorf("forget %v: %d bytes are left in %s", forget, n, dir)
			}
		}
		again, err := repotest.Prune(ctx, be, repotest.NoWaste)
		if err != nil || again.RemovedPacks > 0 || again.WrittenBytes > 0 {
			t.Errorf("forget %v: the next prune removes %d packs and writes %d bytes, error %v", forget, again.RemovedPacks, again.WrittenBytes, err)
		}
		if len(left) > 0 {
			fresh := repotest.New(t, left...)
			if limit := repotest.Size(t, fresh, repotest.PacksDir) * 13 / 10; after > limit {
				t.Errorf("forget %v: %d bytes, a fresh repository of the same days has %d", forget, after, repotest.Size(t, fresh, repotest.PacksDir))
			}
		} else if after != 0 {
			t.Errorf("an empty repository has packs of %d bytes", after)
		}
	}
}

func judgePrune(be *memory.Backend, days ...int) error {
	if err := repotest.Verify(be, days...); err != nil {
		// Some of the days may not have been forgotten yet.
		v, verr := repotest.Examine(be, repotest.Secret)
		if verr != nil {
			return verr
		}
		if !v.Report.Clean() || len(v.Report.Problems) > 0 || len(v.Damaged) > 0 {
			return err
		}
		for _, day := range days {
			if !slices.Contains(v.Days, day) {
				return err
			}
		}
	}
	if _, err := repotest.StoreDay(context.Background(), be, 6); err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	rep, err := repotest.Prune(context.Background(), be, repotest.NoWaste, 1, 3)
	if err != nil {
		return fmt.Errorf("next prune: %w", err)
	}
	if len(rep.Waiting) > 0 || rep.PendingPacks > 0 {
		return fmt.Errorf("the next prune waits: %+v", rep)
	}
	if err := repotest.Verify(be, append(days, 6)...); err != nil {
		return fmt.Errorf("after the next prune: %w", err)
	}
	return nil
}

func TestPruneSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	repotest.EveryFault(t, repotest.Run{Base: repotest.New(t, 1, 2, 3, 4), Do: func(be backend.Backend) error {

		rep, err := repotest.Prune(context.Background(), be, repotest.NoWaste, 1, 3)
		if err == nil && rep.Rebased == 0 {
			err = errors.New("nothing was rebased")
		}
		return err
	}, Least: 30, Want: 8},
		func(be *memory.Backend, err error) error { return judgePrune(be, 2, 4) })
}

func TestPruneSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	repotest.EveryCrash(t, repotest.Run{Base: repotest.New(t, 1, 2, 3, 4), Do: func(be backend.Backend) error {

		rep, err := repotest.Prune(context.Background(), be, repotest.NoWaste, 1, 3)
		if err == nil && rep.Rebased == 0 {
			err = errors.New("nothing was rebased")
		}
		return err
	}, Least: 10, Want: 8},
		func(be *memory.Backend) error { return judgePrune(be, 2, 4) })
}

// A backup that began before a prune and ends at any step of the prune, or later,
// is complete. The next prune removes what the backup does not use.
func TestPruneBesideABackup(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	run := repotest.Run{Base: repotest.New(t, 1, 2, 3), Least: 20, Want: 8, Do: func(be backend.Backend) error {
		_, err := repotest.Prune(ctx, be, repotest.NoWaste, 2, 3)
		return err
	}}
	for _, at := range run.Steps(t) {
		be := repotest.New(t, 1, 2, 3)
		// Days 2 and 3 are forgotten after the writer has read the index.
		r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(50))
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Lock(ctx, repo.LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if err := repotest.Forget(ctx, be, 2, 3); err != nil {
			t.Fatal(err)
		}
		finish := func() {
			if _, err := repotest.Store(ctx, r, repotest.Day(3), 3); err != nil {
				t.Fatal(err)
			}
			l.Release()
		}
		ended := false
		hooked := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == at {
				ended = true
				finish()
			}
			return fault.Action{}
		})
		if _, err := repotest.Prune(ctx, hooked, repotest.NoWaste); err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		if !ended {
			finish()
		}
		if err := repotest.Verify(be, 1, 3); err != nil {
			t.Fatalf("the backup ends at operation %d of the prune: %v", at, err)
		}
		rep, err := repotest.Prune(ctx, be, repotest.NoWaste)
		if err != nil || rep.PendingPacks > 0 {
			t.Fatalf("at %d: the next prune: %+v, error %v", at, rep, err)
		}
		if err := repotest.Verify(be, 1, 3); err != nil {
			t.Fatalf("at %d, after the next prune: %v", at, err)
		}
	}
}

func TestPruneRefusesADamagedRepository(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, dir := range []string{repotest.PacksDir, repotest.IndexDir, repotest.SnapshotsDir} {
		be := repotest.New(t, 1, 2)
		for name := range repotest.Content(t, be) {
			if strings.HasPrefix(name, dir) {
				if err := be.Delete(ctx, name); err != nil {
					t.Fatal(err)
				}
				if err := be.Put(ctx, name, []byte("rubbish")); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := len(repotest.Content(t, be))
		_, err := repotest.Prune(ctx, be, repotest.NoWaste)
		if !errors.Is(err, repo.ErrDamaged) {
			t.Errorf("damage in %s: %v", dir, err)
		}
		if after := len(repotest.Content(t, be)); after != before {
			t.Errorf("damage in %s: %d files of %d are left", dir, after, before)
		}
	}
}

// Unfinished backups are dropped two weeks after the last record, by the clock of the
// store, whatever those of the computers say.
func TestAbandonedByTheStoresClock(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	year := 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		saved, pruned time.Duration // how much the clocks are ahead
		age           time.Duration
		dropped       int
	}{
		"saved by a clock that was behind":  {-year, 0, time.Hour, 0},
		"pruned by a clock that is ahead":   {0, year, 13 * 24 * time.Hour, 0},
		"saved by a clock that was ahead":   {4 * year, 0, 15 * 24 * time.Hour, 1},
		"pruned by a clock that is behind":  {0, -year, 15 * 24 * time.Hour, 1},
		"a store that does not tell a time": {0, 0, -1, 0},
	} {
		be := repotest.New(t, 1)
		at := now
		be.SetClock(func() time.Time {
			if c.age < 0 {
				return time.Time{}
			}
			return at
		})
		open := func(seed byte, skew time.Duration) *repo.Repo {
			opts := repotest.SmallPacks(seed)
			opts.Now, opts.Refresh = func() time.Time { return at.Add(skew) }, -1
			return repotest.MustOpenWith(t, be, repotest.Secret, opts)
		}
		r := open(61, c.saved)
		u, err := r.NewUnfinished(repo.UnfinishedBackup, repotest.JobUDID)
		if err == nil {
			err = repotest.Receive(ctx, r, u, "aa/arrived", repotest.Noise(1, 1000))
		}
		if err != nil {
			t.Fatal(err)
		}
		at = now.Add(c.age)
		p := open(62, c.pruned)
		l, err := p.Lock(ctx, repo.LockPrune, "prune")
		if err != nil {
			t.Fatal(err)
		}
		rep, err := p.Prune(ctx, repotest.NoWaste)
		if err != nil || rep.AbandonedRuns != c.dropped {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
		l.Release()
	}
}

// If the records of all snapshots are lost, a prune must not remove what a repair needs.
func TestPruneWithoutSnapshots(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	for _, name := range repotest.FilesIn(t, be, repotest.SnapshotsDir) {
		repotest.Remove(t, be, name)
	}
	packs := repotest.Size(t, be, repotest.PacksDir)
	opts := repotest.NoWaste
	opts.AllowEmpty = true
	for _, opts := range []repo.PruneOptions{repotest.NoWaste, opts} {
		if _, err := repotest.Prune(ctx, be, opts); !errors.Is(err, repo.ErrDamaged) {
			t.Errorf("prune = %v, although the ledger knows of snapshots", err)
		}
	}
	repotest.RemoveLedger(t, be)
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); !errors.Is(err, repo.ErrNoSnapshots) {
		t.Errorf("prune = %v", err)
	}
	if got := repotest.Size(t, be, repotest.PacksDir); got != packs {
		t.Errorf("%d bytes of packs are left of %d", got, packs)
	}
	if rep, err := repotest.Prune(ctx, be, opts); err != nil || rep.RemovedPacks == 0 {
		t.Errorf("prune that may remove everything = %+v, %v", rep, err)
	}
}

// If a chunk of an unfinished backup is lost, a prune keeps the others: the device sends
// only the file with this chunk again.
func TestPruneKeepsWhatIsLeftOfUnfinished(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	before := repotest.FilesIn(t, base, repotest.PacksDir)
	r := repotest.MustOpenWith(t, base, repotest.Secret, repotest.SmallPacks(61))
	u, err := r.NewUnfinished(repo.UnfinishedBackup, repotest.JobUDID)
	files := map[string][]byte{}
	for i := range 20 {
		files[fmt.Sprintf("aa/%02d", i)] = repotest.Noise(uint64(i), 100<<10)
	}
	if err == nil {
		err = repotest.ReceiveAll(ctx, r, u, files)
	}
	if err != nil {
		t.Fatal(err)
	}
	// left returns how many chunks of the files there are; ok is false if its record
	// cannot be followed.
	left := func(be backend.Backend) (n int, ok bool) {
		r := repotest.MustOpenWith(t, be, repotest.Secret, repotest.SmallPacks(62))
		err := r.WalkUnfinished(ctx, u, func(e *tree.Entry) error {
			count := func(id chunk.ID) error {
				if r.Index().Has(id) {
					n++
				}
				return nil
			}
			return e.Content.All(ctx, r.Chunk, func(chunk.ID) error { return nil }, count)
		})
		return n, err == nil
	}
	all, _ := left(base)
	tried := 0
	for _, name := range repotest.FilesIn(t, base, repotest.PacksDir) {
		if slices.Contains(before, name) {
			continue
		}
		be := base.Clone()
		repotest.Remove(t, be, name)
		if err := repotest.RepairIndex(be); err != nil {
			t.Fatal(err)
		}
		want, ok := left(be)
		if !ok || want == 0 {
			continue
		}
		tried++
		if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
			t.Fatal(err)
		}
		if got, ok := left(be); !ok || got != want {
			t.Errorf("without %s %d of %d chunks are left, and %d after a prune", name, want, all, got)
		}
	}
	if tried < 3 {
		t.Errorf("only %d packs were removed, of files of %d chunks", tried, all)
	}
}
