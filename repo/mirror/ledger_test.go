package mirror_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// A run copies the files of the ledger last, the newest first: whenever it is interrupted, the
// target has all records that its ledger knows and that were not removed. If it cannot copy a
// record, it copies none of these files.
func TestMirrorCopiesTheLedgerLast(t *testing.T) {
	t.Parallel()
	source := repotest.New(t, 1, 2)
	repotest.RemoveLedger(t, source)
	now := time.Unix(1e9, 0)
	source.SetClock(func() time.Time { now = now.Add(time.Minute); return now })
	var want []string
	for _, text := range []string{"oldest", "older", "newest"} {
		id := repotest.PutNamed(t, source, repotest.LedgerDir, []byte("snaple01"+text))
		want = slices.Insert(want, 0, repotest.LedgerDir+id.String())
	}
	var put []string
	target := fault.New(memory.New(), func(c fault.Call) fault.Action {
		if c.Op == fault.Put {
			put = append(put, c.Name)
		}
		return fault.Action{}
	})
	if err := mirrorTo(source, target, mirror.Options{}); err != nil {
		t.Fatal(err)
	}
	copied := slices.DeleteFunc(slices.Clone(put), func(name string) bool { return strings.HasPrefix(name, "mirrored/") })
	if got := copied[max(0, len(copied)-len(want)):]; !slices.Equal(got, want) {
		t.Errorf("at the end of %v: %v, want %v", put, got, want)
	}

	repotest.Flip(t, source, repotest.FilesIn(t, source, repotest.SnapshotsDir)[0], 60)
	damaged := memory.New()
	if err := mirrorTo(source, damaged, mirror.Options{}); !errors.Is(err, mirror.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if files := repotest.FilesIn(t, damaged, repotest.LedgerDir); len(files) > 0 {
		t.Errorf("copied although a record was not: %v", files)
	}
}

// If the source has lost records, runs with the key say so and remove nothing, also with
// AcceptRemovals: neither the records nor packs that only they need. They still copy the
// ledger, so that the mirror can store the records again. Once the source has them
// again, the mirror follows.
func TestMirrorOfLostRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	copied := memory.New()
	if err := mirrorTo(base, copied, keyOptions(t, base, true)); err != nil {
		t.Fatal(err)
	}
	want := repotest.Content(t, copied)
	names := repotest.FilesIn(t, base, repotest.SnapshotsDir)
	for lost := 1; lost <= len(names); lost++ {
		source, target := base.Clone(), copied.Clone()
		repotest.Remove(t, source, names[:lost]...)
		for _, accept := range []bool{false, false, true, false} {
			opts := keyOptions(t, source, true)
			opts.AcceptRemovals = accept
			rep, err := mirror.Run(ctx, source, target, opts)
			if !errors.Is(err, mirror.ErrDamaged) || len(rep.Damaged) != lost || len(rep.Better) != lost {
				t.Fatalf("%d lost: %+v, %v", lost, rep, err)
			}
			got := repotest.Content(t, target)
			for name := range want {
				if got[name] == nil && !strings.HasPrefix(name, "mirrored/") {
					t.Fatalf("%d lost: the mirror has lost %s", lost, name)
				}
			}
		}
		rep, err := mirror.Check(ctx, source, target, keyOptions(t, source, true))
		if err != nil || len(rep.SourceDamaged) != lost {
			t.Errorf("%d lost: check: %+v, %v", lost, rep, err)
		}
		fresh := memory.New()
		if err := mirrorTo(source, fresh, keyOptions(t, source, true)); !errors.Is(err, mirror.ErrDamaged) {
			t.Errorf("%d lost: %v", lost, err)
		}
		if err := repotest.RepairSnapshots(fresh); err != nil {
			t.Fatal(err)
		}
		if err := repotest.Verify(fresh, 1, 2, 3); err != nil {
			t.Errorf("%d lost: a mirror that never had the records: %v", lost, err)
		}
		if err := repotest.RepairSnapshots(source); err != nil {
			t.Fatal(err)
		}
		if err := mirrorTo(source, target, keyOptions(t, source, true)); err != nil {
			t.Error(err)
		}
		if err := sameRepository(t, source, target); err != nil {
			t.Error(err)
		}
	}
}

// The source has lost a record, the ledger, and a pack. An index file still lists the pack, so
// no prune has removed it. Runs with the key say so and remove nothing, whichever pack it is.
func TestMirrorOfLostPacks(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3)
	copied := memory.New()
	if err := mirrorTo(base, copied, keyOptions(t, base, true)); err != nil {
		t.Fatal(err)
	}
	r := repotest.MustOpen(t, base)
	s, err := repotest.FindDay(context.Background(), r, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, pack := range repotest.FilesIn(t, base, repotest.PacksDir) {
		source, target := base.Clone(), copied.Clone()
		repotest.Remove(t, source, pack, repotest.SnapshotsDir+s.ID.String())
		repotest.RemoveLedger(t, source)
		for _, accept := range []bool{false, false, true} {
			opts := keyOptions(t, source, true)
			opts.AcceptRemovals = accept
			if err := mirrorTo(source, target, opts); !errors.Is(err, mirror.ErrDamaged) || !strings.Contains(err.Error(), "nothing was removed") {
				t.Fatalf("without %s: %v", pack, err)
			}
		}
		if err := repotest.Verify(target, 1, 2, 3); err != nil {
			t.Errorf("without %s: %v", pack, err)
		}
	}
}

// withoutTrace makes a source that lacks the snapshot of day 2 as if somebody without the key
// had removed its record, its packs, its index files and the files of the ledger that knew it.
// It is a state that a prune leaves, without the ledger. later says that a backup has entered
// all other records since.
func withoutTrace(t *testing.T, base *memory.Backend, later bool) *memory.Backend {
	t.Helper()
	source := base.Clone()
	if _, err := repotest.Prune(t.Context(), source, repotest.NoWaste, 2); err != nil {
		t.Fatal(err)
	}
	repotest.RemoveLedger(t, source)
	if later {
		if _, err := repotest.StoreDay(t.Context(), source, 4); err != nil {
			t.Fatal(err)
		}
	}
	return source
}

// The source has lost a snapshot with everything that knew it. The mirror's ledger still says
// that it exists, so it is named in every run, and nothing is removed. A repair from the mirror
// gets it back. Then the owner can forget it, and the mirror follows.
func TestMirrorAsksItsOwnLedger(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := repotest.New(t, 1, 2, 3)
	copied := memory.New()
	if err := mirrorTo(base, copied, keyOptions(t, base, true)); err != nil {
		t.Fatal(err)
	}
	s, err := repotest.FindDay(ctx, repotest.MustOpen(t, base), 2)
	if err != nil {
		t.Fatal(err)
	}
	name := repotest.SnapshotsDir + s.ID.String()
	for n := range 4 {
		later, first := n&1 > 0, n&2 > 0
		source, target := withoutTrace(t, base, later), copied.Clone()
		if first { // the ledger alone was removed some nights before
			unlisted := base.Clone()
			repotest.RemoveLedger(t, unlisted)
			for range 3 {
				if err := mirrorTo(unlisted, target, keyOptions(t, unlisted, true)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, accept := range []bool{false, false, true, false} {
			opts := keyOptions(t, source, true)
			opts.AcceptRemovals = accept
			rep, err := mirror.Run(ctx, source, target, opts)
			if !errors.Is(err, mirror.ErrDamaged) || len(rep.Damaged) != 1 || rep.Damaged[0].File != name || len(rep.Better) != 1 || rep.RemovedFiles > 0 {
				t.Fatalf("%d: %+v, %v", n, rep, err)
			}
			days := []int{1, 2, 3}
			if later {
				days = append(days, 4)
			}
			if err := repotest.Verify(target, days...); err != nil {
				t.Fatalf("%d: %v", n, err)
			}
		}
		check, err := mirror.Check(ctx, source, target, keyOptions(t, source, true))
		if err != nil || len(check.SourceDamaged) != 1 || len(check.Damaged) > 0 {
			t.Errorf("%d: check: %+v, %v", n, check, err)
		}
		err = repotest.Repair(ctx, source, 65, func(r *repo.Repo) error {
			_, err := r.HealFromMirror(ctx, target, repo.HealOptions{})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := followExactly(t, source, target); err != nil {
			t.Errorf("%d: after the repair: %v", n, err)
		}
		if _, err := target.Stat(ctx, name); err != nil {
			t.Errorf("%d: after the repair: %v", n, err)
		}
		if err := repotest.Forget(ctx, source, 2); err != nil {
			t.Fatal(err)
		}
		if err := followExactly(t, source, target); err != nil {
			t.Errorf("%d: forgotten: %v", n, err)
		}
		if _, err := target.Stat(ctx, name); err == nil {
			t.Errorf("%d: forgotten, and still there", n)
		}
	}
}

// A snapshot that was forgotten leaves the mirror, also if the files of the ledger were merged
// since, and if more removals were entered since than the ledger keeps.
func TestMirrorOfForgottenSnapshots(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := repotest.New(t, 1, 2, 3)
	copied := memory.New()
	if err := mirrorTo(base, copied, keyOptions(t, base, true)); err != nil {
		t.Fatal(err)
	}
	for _, many := range []bool{false, true} {
		source, target := base.Clone(), copied.Clone()
		if _, err := repotest.Prune(ctx, source, repotest.NoWaste, 2); err != nil {
			t.Fatal(err)
		}
		var removed []layout.FileID
		for i := range 5000 {
			if many {
				removed = append(removed, layout.FileID{byte(i), byte(i >> 8), 1})
			}
		}
		opts := repotest.SmallPacks(66)
		opts.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
		r, err := access.Open(ctx, source, repotest.Secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		merge := func(ids []layout.FileID) {
			l, err := ledger.Read(ctx, r)
			if err == nil {
				err = l.Remove(ctx, r, ids)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		merge(removed)
		for i := range 40 {
			merge([]layout.FileID{{byte(i), 2}})
		}
		s, err := repotest.FindDay(ctx, repotest.MustOpen(t, base), 2)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := ledger.Read(ctx, r); err != nil || (l.Get(s.ID) == nil) != many {
			t.Errorf("many: %v: the removal is %v, %v", many, l.Get(s.ID), err)
		}
		if err := followExactly(t, source, target); err != nil {
			t.Errorf("many: %v: %v", many, err)
		}
	}
}
