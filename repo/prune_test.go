package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// everything is a PruneOptions that leaves no waste.
var everything = PruneOptions{MaxUnused: func(int64) int64 { return 0 }, MaxRepack: -1}

// pruneTiny is one run of a program that forgets days and prunes. If it is
// killed, others can tell.
func pruneTiny(ctx context.Context, be backend.Backend, opts PruneOptions, forget ...int) (*PruneReport, error) {
	o := tinyOptions(77)
	dead := process.Current()
	dead.Started += "0"
	o.Owner, o.Refresh = &dead, -1
	r, err := Open(ctx, be, testSecret, o)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, LockPrune, "prune")
	if err != nil {
		return nil, err
	}
	if err := forgetDays(ctx, r, forget); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	rep, err := r.Prune(ctx, opts)
	return rep, errors.Join(err, l.Release())
}

func forgetDays(ctx context.Context, r *Repo, days []int) error {
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if slices.Contains(days, s.Time.Day()) {
			if err := r.Forget(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func forgetTiny(ctx context.Context, be backend.Backend, days ...int) error {
	r, err := Open(ctx, be, testSecret, tinyOptions(3))
	if err != nil {
		return err
	}
	return forgetDays(ctx, r, days)
}

// chainRepo is a store with days that are deltas to each other.
func chainRepo(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	ctx := context.Background()
	be := tinyRepo(t)
	var parent *Snapshot
	for _, day := range days {
		r, err := openWith(ctx, be, testSecret, tinyOptions(byte(10+day)))
		if err != nil {
			t.Fatal(err)
		}
		if parent, err = storeWithParent(ctx, r, tinyFiles(day), day, parent); err != nil {
			t.Fatal(err)
		}
	}
	return be
}

func size(t testing.TB, be backend.Backend, dir string) (n int64) {
	t.Helper()
	for name, b := range content(t, be) {
		if strings.HasPrefix(name, dir) {
			n += int64(len(b))
		}
	}
	return n
}

func TestPruneFreesWhatNothingNeeds(t *testing.T) {
	ctx := context.Background()
	for _, forget := range [][]int{{}, {1}, {5}, {1, 2, 3}, {2, 4}, {1, 2, 3, 4, 5}} {
		be := chainRepo(t, 1, 2, 3, 4, 5)
		before := size(t, be, packsDir)
		dry := everything
		dry.DryRun = true
		copied := be.Clone()
		r, err := Open(ctx, copied, testSecret, tinyOptions(3))
		if err != nil {
			t.Fatal(err)
		}
		if err := forgetDays(ctx, r, forget); err != nil {
			t.Fatal(err)
		}
		forgotten := len(content(t, copied))
		forecast, err := r.Prune(ctx, dry)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(content(t, copied)); got != forgotten {
			t.Errorf("forget %v: a dry run has changed the store", forget)
		}
		rep, err := pruneTiny(ctx, be, everything, forget...)
		if err != nil {
			t.Fatalf("forget %v: %v", forget, err)
		}
		var left []int
		for day := 1; day <= 5; day++ {
			if !slices.Contains(forget, day) {
				left = append(left, day)
			}
		}
		if err := judgeClean(be, testSecret, left...); err != nil {
			t.Errorf("forget %v: %v", forget, err)
		}
		after := size(t, be, packsDir)
		freed := before - after
		t.Logf("forget %v: %d to %d bytes, forecast %d; %+v", forget, before, after, forecast.FreeBytes, *rep)
		if diff := freed - forecast.FreeBytes; diff < -forecast.FreeBytes/10-4096 || diff > forecast.FreeBytes/10+4096 {
			t.Errorf("forget %v: freed %d bytes, the forecast was %d", forget, freed, forecast.FreeBytes)
		}
		if freed != rep.FreedBytes-rep.WrittenBytes && rep.WrittenBytes == 0 {
			t.Errorf("forget %v: freed %d bytes, reported %d less %d", forget, freed, rep.FreedBytes, rep.WrittenBytes)
		}
		for _, dir := range []string{locksDir, prunesDir} {
			if n := size(t, be, dir); n > 0 {
				t.Errorf("forget %v: %d bytes are left in %s", forget, n, dir)
			}
		}
		again, err := pruneTiny(ctx, be, everything)
		if err != nil || again.RemovedPacks > 0 || again.WrittenBytes > 0 {
			t.Errorf("forget %v: the next prune removes %d packs and writes %d bytes, error %v", forget, again.RemovedPacks, again.WrittenBytes, err)
		}
		if len(left) > 0 {
			fresh := chainRepo(t, left...)
			if limit := size(t, fresh, packsDir) * 13 / 10; after > limit {
				t.Errorf("forget %v: %d bytes, a fresh repository of the same days has %d", forget, after, size(t, fresh, packsDir))
			}
		} else if after != 0 {
			t.Errorf("an empty repository has packs of %d bytes", after)
		}
	}
}

func judgePrune(be *memory.Backend, days ...int) error {
	if err := judgeClean(be, testSecret, days...); err != nil {
		// Some of the days may not have been forgotten yet.
		v, verr := judge(be, testSecret)
		if verr != nil {
			return verr
		}
		if !v.report.Clean() || len(v.report.Problems) > 0 || len(v.damaged) > 0 {
			return err
		}
		for _, day := range days {
			if !slices.Contains(v.days, day) {
				return err
			}
		}
	}
	if _, err := storeTiny(context.Background(), be, 6); err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	rep, err := pruneTiny(context.Background(), be, everything, 1, 3)
	if err != nil {
		return fmt.Errorf("next prune: %w", err)
	}
	if len(rep.Waiting) > 0 || rep.PendingPacks > 0 {
		return fmt.Errorf("the next prune waits: %+v", rep)
	}
	if err := judgeClean(be, testSecret, append(days, 6)...); err != nil {
		return fmt.Errorf("after the next prune: %w", err)
	}
	return nil
}

func TestPruneSurvivesEveryFault(t *testing.T) {
	everyOperation(t, 30, chainRepo(t, 1, 2, 3, 4),
		func(be backend.Backend) error {
			// What leaned on day 3 comes to lean on day 2, which is stored in full.
			rep, err := pruneTiny(context.Background(), be, everything, 1, 3)
			if err == nil && rep.Rebased == 0 {
				err = errors.New("nothing was rebased")
			}
			return err
		},
		func(be *memory.Backend, err error) error { return judgePrune(be, 2, 4) })
}

func TestPruneSurvivesEveryCrash(t *testing.T) {
	everyCrash(t, false, 10, chainRepo(t, 1, 2, 3, 4),
		func(be backend.Backend) error {
			// What leaned on day 3 comes to lean on day 2, which is stored in full.
			rep, err := pruneTiny(context.Background(), be, everything, 1, 3)
			if err == nil && rep.Rebased == 0 {
				err = errors.New("nothing was rebased")
			}
			return err
		},
		func(be *memory.Backend) error { return judgePrune(be, 2, 4) })
}

// A backup that began before a prune, and ends at any of its steps or after,
// lacks nothing; what it does not use goes with the next prune.
func TestPruneBesideABackup(t *testing.T) {
	ctx := context.Background()
	for at := 1; ; at++ {
		be := chainRepo(t, 1, 2, 3)
		// The writer has read the index, and day 3 is then forgotten.
		r, err := Open(ctx, be, testSecret, tinyOptions(50))
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Lock(ctx, LockWrite, "backup")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if err := forgetTiny(ctx, be, 2, 3); err != nil {
			t.Fatal(err)
		}
		finish := func() {
			if _, err := store(ctx, r, tinyFiles(3), 3); err != nil {
				t.Fatal(err)
			}
			l.Release()
		}
		hooked := &hookBackend{Backend: be, at: at, hook: finish}
		if _, err := pruneTiny(ctx, hooked, everything); err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		ended := hooked.n < at
		if ended {
			finish()
		}
		if err := judgeClean(be, testSecret, 1, 3); err != nil {
			t.Fatalf("the backup ends at operation %d of the prune: %v", at, err)
		}
		rep, err := pruneTiny(ctx, be, everything)
		if err != nil || rep.PendingPacks > 0 {
			t.Fatalf("at %d: the next prune: %+v, error %v", at, rep, err)
		}
		if err := judgeClean(be, testSecret, 1, 3); err != nil {
			t.Fatalf("at %d, after the next prune: %v", at, err)
		}
		if ended {
			if at < 20 {
				t.Errorf("the prune had only %d operations", at)
			}
			return
		}
	}
}

// hookBackend calls hook before operation at.
type hookBackend struct {
	backend.Backend
	at, n int
	hook  func()
}

func (b *hookBackend) step() {
	if b.n++; b.n == b.at {
		b.hook()
	}
}

func (b *hookBackend) Put(ctx context.Context, name string, data []byte) error {
	b.step()
	return b.Backend.Put(ctx, name, data)
}

func (b *hookBackend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	b.step()
	return b.Backend.List(ctx, prefix, fn)
}

func (b *hookBackend) Delete(ctx context.Context, name string) error {
	b.step()
	return b.Backend.Delete(ctx, name)
}

func TestPruneRefusesADamagedRepository(t *testing.T) {
	ctx := context.Background()
	for _, dir := range []string{packsDir, indexDir, snapshotsDir} {
		be := chainRepo(t, 1, 2)
		for name := range content(t, be) {
			if strings.HasPrefix(name, dir) {
				if err := be.Delete(ctx, name); err != nil {
					t.Fatal(err)
				}
				if err := be.Put(ctx, name, []byte("rubbish")); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := len(content(t, be))
		_, err := pruneTiny(ctx, be, everything)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("damage in %s: %v", dir, err)
		}
		if after := len(content(t, be)); after != before {
			t.Errorf("damage in %s: %d files of %d are left", dir, after, before)
		}
	}
}
