package check_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// checkPart checks part of a repository, as a process of its own would on a given
// day.
func checkPart(ctx context.Context, be backend.Backend, day int, opts repo.CheckOptions) (*repo.CheckReport, error) {
	o := repotest.SmallPacks(byte(day))
	o.Now = func() time.Time { return time.Date(2026, 2, day, 4, 0, 0, 0, time.UTC) }
	r, err := repo.Open(ctx, be, repotest.Secret, o)
	if err != nil {
		return nil, err
	}
	opts.Seed = uint64(day)
	return r.Check(ctx, opts)
}

// Checks that read a part each day read everything once before they read
// anything twice.
func TestChecksOfPartsReadEverything(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	packs := len(repotest.FilesIn(t, be, repotest.PacksDir))
	read := 0
	for day := 1; day <= 34; day++ {
		rep, err := checkPart(ctx, be, day, repo.CheckOptions{ReadData: 0.03})
		if err != nil {
			t.Fatal(err)
		}
		read += rep.ReadPacks
		if want := max(packs-read, 0); rep.UnreadPacks != want {
			t.Fatalf("day %d: %d packs of %d were never read, want %d", day, rep.UnreadPacks, packs, want)
		}
		if n := len(repotest.FilesIn(t, be, repotest.ChecksDir)); n != 1 {
			t.Fatalf("day %d: %d logs", day, n)
		}
	}
	if read < packs {
		t.Fatalf("%d of %d packs read", read, packs)
	}
	rep, err := checkPart(ctx, be, 36, repo.CheckOptions{ReadPacks: 3})
	if err != nil || rep.ReadPacks != 3 || rep.Oldest == nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	// Damage is found when its pack is read, and by every later check until it is
	// repaired.
	name := repotest.FilesIn(t, be, repotest.PacksDir)[0]
	b := repotest.Content(t, be)[name]
	b[len(b)/2] ^= 1
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
	found, turns := 0, 0
	for day := 37; day < 37+2*packs; day++ {
		rep, err := checkPart(ctx, be, day, repo.CheckOptions{ReadBytes: 1})
		if err != nil || rep.ReadPacks != 1 {
			t.Fatal(rep, err)
		}
		if found == 0 {
			turns++
		}
		if !rep.Clean() {
			found++
		}
	}
	if turns > packs || found < packs {
		t.Fatalf("the damage was found after %d checks, and by %d checks, with %d packs", turns, found, packs)
	}
}

// A check by a computer whose clock was ahead does not keep packs from being read again.
func TestPartsReadInTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	if rep, err := checkPart(ctx, be, 4*366, repo.CheckOptions{ReadPacks: 3}); err != nil || rep.ReadPacks != 3 {
		t.Fatal(rep, err)
	}
	packs := len(repotest.FilesIn(t, be, repotest.PacksDir))
	rep, err := checkPart(ctx, be, 1, repo.CheckOptions{ReadPacks: packs - 3})
	if err != nil || rep.UnreadPacks != 3 {
		t.Fatalf("%d packs count as never read, %v", rep.UnreadPacks, err)
	}
	if rep, err = checkPart(ctx, be, 2, repo.CheckOptions{ReadPacks: 3}); err != nil || rep.UnreadPacks != 0 {
		t.Fatalf("%d packs count as never read, %v", rep.UnreadPacks, err)
	}
}

// A check that fails leaves the repository unchanged. Its log is valid or is
// ignored.
func TestCheckSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	if _, err := checkPart(ctx, base, 1, repo.CheckOptions{ReadPacks: 2}); err != nil {
		t.Fatal(err)
	}
	run := repotest.Run{Base: base, Want: 8, Do: func(be backend.Backend) error {
		rep, err := checkPart(ctx, be, 2, repo.CheckOptions{ReadPacks: 2})
		if err == nil && len(rep.Problems) > 0 {
			err = fault.ErrInjected // check noticed the fault and reported it
		}
		return err
	}}
	repotest.EveryFault(t, run, func(be *memory.Backend, _ error) error { return repotest.Verify(be, 1) })
}

// A damaged log of checks does no harm, and the next check removes it.
func TestDamagedCheckRecord(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	for _, b := range []string{"", "snapck01", "snapck01" + strings.Repeat("x", 100)} {
		if err := be.Set(repotest.ChecksDir+strings.Repeat("0", 64), []byte(b)); err != nil {
			t.Fatal(err)
		}
		rep, err := checkPart(ctx, be, 2, repo.CheckOptions{ReadData: 1})
		if err != nil || !rep.Clean() || rep.UnreadPacks > 0 || len(repotest.FilesIn(t, be, repotest.ChecksDir)) != 1 {
			t.Fatalf("%+v, %v, %v", rep, err, repotest.FilesIn(t, be, repotest.ChecksDir))
		}
	}
}

// If a backup ends while a check runs, the check does not report the backup as
// damaged.
func TestCheckBesideBackup(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	run := repotest.Run{Base: base, Least: 10, Want: 6, Do: func(be backend.Backend) error {
		_, err := checkPart(ctx, be, 1, repo.CheckOptions{ReadData: 1})
		return err
	}}
	for _, n := range run.Steps(t) {
		be := base.Clone()
		var failed error
		done := false
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n && !done {
				done = true
				_, failed = repotest.StoreDay(ctx, be, 2)
			}
			return fault.Action{}
		})
		rep, err := checkPart(ctx, store, 1, repo.CheckOptions{ReadData: 1})
		if err != nil || failed != nil || !rep.Clean() || len(rep.Problems) > 0 {
			t.Fatalf("a backup at operation %d: %+v, %v, %v", n, rep, err, failed)
		}
	}
}

// If a snapshot is forgotten and pruned while a check runs, the check does not report
// the snapshot as damaged.
func TestCheckBesideForget(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	all := repotest.Content(t, be)
	done := false
	store := fault.New(be, func(c fault.Call) fault.Action {
		if c.Op == fault.List && c.Name == repotest.IndexDir && !done {
			done = true
			if err := repotest.Forget(ctx, be, 2); err != nil {
				t.Error(err)
			}
			if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
				t.Error(err)
			}
		}
		return fault.Action{}
	})
	rep, err := checkPart(ctx, store, 1, repo.CheckOptions{ReadData: 1})
	if err != nil || !rep.Clean() || !done {
		t.Fatalf("%+v, %v", rep, err)
	}
	if len(repotest.Content(t, be)) >= len(all) {
		t.Error("nothing was removed")
	}
}
