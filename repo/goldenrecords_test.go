package repo_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/check"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/repotest"
)

var updateRecords = flag.Bool("update-records", false, "write the golden repository of all kinds of records anew; only for a new format version")

// recordsDir is a golden repository in use. It has every kind of file that
// golden-v1 does not have, except certificates. It was once a mirror. It has the
// lock of a backup on another machine. That backup may have ended, but a prune
// waits for it. A device backup, a change of a record and a repair were
// interrupted.
const recordsDir = "testdata/golden-v1-records"

// recordFiles returns the files of a day, 15 KB in all.
func recordFiles(day int) repotest.Files {
	db := append([]byte("SQLite format 3\x00"), repotest.Noise(1, 6<<10)...)
	copy(db[3<<10:], fmt.Appendf(nil, "row of day %d", day))
	return repotest.Files{
		"Info.plist": fmt.Appendf(nil, "info of day %d", day), "empty": nil,
		"aa/old": repotest.Noise(2, 5<<10), "bb/new": repotest.Noise(uint64(100+day), 2<<10), "cc/database": db,
	}
}

const recordNote = "the last one before the repair"

var recordLabels = repo.Labels{
	Tags: []string{"before-update", "weekly"}, Note: recordNote,
	Pin: &repo.Pin{Since: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Reason: "before the repair"},
}

func recordOptions(seed byte, now time.Time) repo.Options {
	o := repotest.Options(seed)
	o.PackSize, o.Refresh = 8<<10, -1
	clock := o.Now
	begun := clock()
	o.Now = func() time.Time { return now.Add(clock().Sub(begun)) }
	return o
}

// mirrorOnce mirrors source, one file at a time so that the result is
// repeatable.
func mirrorOnce(source, target backend.Backend) error {
	_, err := mirror.Run(context.Background(), source, target, mirror.Options{Workers: 1})
	return err
}

// makeRecords makes the repository.
func makeRecords(t *testing.T) *memory.Backend {
	ctx := context.Background()
	now := time.Date(2026, 2, 1, 8, 0, 0, 0, time.UTC)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secret := []byte(goldenPassword)
	source := memory.New()
	_, err := repo.Create(ctx, source, secret, crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "golden"}, recordOptions(1, now))
	must(err)
	var parent *repo.Snapshot
	add := func(be backend.Backend, day int) *repo.Snapshot {
		r, err := repotest.Open(ctx, be, secret, recordOptions(byte(10+day), now.AddDate(0, 0, day)))
		must(err)
		s, err := repotest.StoreAfter(ctx, r, recordFiles(day), day, parent)
		must(err)
		return s
	}
	for day := 1; day <= 3; day++ {
		parent = add(source, day)
	}
	be := memory.New()
	must(mirrorOnce(source, be))

	r, err := repotest.Open(ctx, be, secret, recordOptions(30, now.AddDate(0, 0, 5)))
	must(err)
	second, err := repotest.FindDay(ctx, r, 2)
	must(err)
	record, err := backend.ReadAll(ctx, be, repotest.SnapshotsDir+second.ID.String(), 1<<20)
	must(err)
	l, err := r.Lock(ctx, repo.LockWrite, "snap tag")
	must(err)
	_, err = r.ChangeSnapshot(ctx, second, recordLabels)
	must(errors.Join(err, l.Release()))
	must(be.Put(ctx, repotest.SnapshotsDir+second.ID.String(), record)) // as if ChangeSnapshot had been interrupted
	must(r.KeepDevicePassword(ctx, repotest.JobUDID, []byte("of the phone")))
	u, err := r.NewUnfinished(repo.UnfinishedBackup, repotest.JobUDID)
	must(err)
	must(repotest.Receive(ctx, r, u, "dd/arrived", repotest.Noise(3, 3<<10)))
	_, err = r.Check(ctx, repo.CheckOptions{ReadData: 1})
	must(err)
	_, err = r.RefreshParity(ctx, 50_00, nil)
	must(err)
	must(be.Put(ctx, repotest.ReserveName, repotest.Noise(4, 1000)))
	name := repotest.FilesIn(t, be, repotest.PacksDir)[0]
	must(be.Put(ctx, replace.Dir+name, repotest.Content(t, be)[name]))

	// A prune finds the packs of this snapshot unused, but cannot remove them
	// yet.
	fourth := add(be, 4)
	elsewhere := recordOptions(40, now.AddDate(0, 0, 6))
	elsewhere.Owner = &process.Identity{Host: "nas", User: "anna", PID: 4711, Started: "12345", Boot: "1"}
	w, err := repotest.Open(ctx, be, secret, elsewhere)
	must(err)
	_, err = w.Lock(ctx, repo.LockWrite, "snap backup")
	must(err)
	p, err := repo.Open(ctx, be, secret, recordOptions(41, now.AddDate(0, 0, 6)))
	must(err)
	must(p.Forget(ctx, fourth.ID))
	l, err = p.Lock(ctx, repo.LockPrune, "snap prune")
	must(err)
	rep, err := p.Prune(ctx, repo.PruneOptions{MaxRepack: 0})
	if err == nil && len(rep.Waiting) != 1 {
		err = fmt.Errorf("%+v", rep)
	}
	must(errors.Join(err, l.Release()))
	return be
}

// goldenRecordsNow is the time at which tests open the repository.
var goldenRecordsNow = time.Date(2026, 2, 9, 8, 0, 0, 0, time.UTC)

func openRecords(t *testing.T, be backend.Backend) *repo.Repo {
	t.Helper()
	r, err := repotest.Open(context.Background(), be, []byte(goldenPassword), recordOptions(50, goldenRecordsNow))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verifyRecords fails the test unless these days can be restored and check finds
// nothing.
func verifyRecords(t *testing.T, be backend.Backend, days ...int) *repo.CheckReport {
	t.Helper()
	ctx := context.Background()
	r := openRecords(t, be)
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	var got []int
	for _, s := range list {
		got = append(got, s.Time.Day())
		f, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = f.Same(recordFiles(s.Time.Day()))
		}
		if err != nil {
			t.Errorf("day %d: %v", s.Time.Day(), err)
		}
		if l := s.Labels(); s.Time.Day() == 2 && (!slices.Equal(l.Tags, recordLabels.Tags) || l.Note != recordNote || l.Pin == nil || *l.Pin != *recordLabels.Pin) {
			t.Errorf("labels %+v", l)
		}
	}
	if !slices.Equal(got, days) {
		t.Errorf("snapshots of days %v, want %v", got, days)
	}
	rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !rep.Clean() || len(rep.Problems) > 0 {
		t.Errorf("check: %+v, %v", rep, err)
	}
	return rep
}

// TestGoldenRecords reads the repository in recordsDir, which an earlier version of
// the program wrote, and uses each kind of its files.
func TestGoldenRecords(t *testing.T) {
	ctx := context.Background()
	if *updateRecords {
		writeGoldenTo(t, recordsDir, makeRecords(t))
	}
	be := loadGoldenFrom(t, recordsDir)
	kinds := map[string]int{}
	total := 0
	for name, b := range repotest.Content(t, be) {
		kinds[repotest.Folder(name)]++
		total += len(b)
	}
	for _, kind := range []string{"config", "keys", "packs", "index", "snapshots", "secrets", "locks", "prunes", "runs", "checks", "parity", "mirrored", "healing", "reserve"} {
		if kinds[kind] == 0 {
			t.Errorf("no file of kind %s in %v", kind, kinds)
		}
	}
	if total > 120<<10 {
		t.Errorf("the golden repository has %d bytes", total)
	}
	pristine := repotest.Content(t, be)

	r := openRecords(t, be.Clone())
	replacement := repotest.FilesIn(t, be, replace.Dir)
	if rep, err := r.Check(ctx, repo.CheckOptions{}); err != nil || len(rep.Problems) != 1 || rep.Problems[0].File != replacement[0] {
		t.Errorf("check after an interrupted repair: %+v, %v", rep, err)
	}
	if _, err := replace.Finish(ctx, be); err != nil || len(repotest.FilesIn(t, be, replace.Dir)) > 0 {
		t.Fatal("the repair cannot be completed:", err)
	}
	delete(pristine, replacement[0])

	r = openRecords(t, be)
	locks, err := r.Locks(ctx)
	if err != nil || len(locks) != 1 || locks[0].Kind != repo.LockWrite || locks[0].What != "snap backup" || locks[0].Owner.Host != "nas" || locks[0].State != repo.LockStale {
		t.Errorf("locks: %+v, %v", locks, err)
	}
	lists, err := repo.Store(r).PruneLists(ctx)
	if err != nil || len(lists) != 1 || len(lists[0].Packs) == 0 {
		t.Errorf("prune lists: %+v, %v", lists, err)
	}
	runs, damaged, err := r.Unfinished(ctx)
	if err != nil || len(runs) != 1 || len(damaged) > 0 || runs[0].UDID != repotest.JobUDID {
		t.Fatalf("unfinished runs: %+v, %v, %v", runs, damaged, err)
	}
	if got, err := repotest.Received(ctx, r, runs[0]); err != nil || got["dd/arrived"] != string(repotest.Noise(3, 3<<10)) {
		t.Errorf("the unfinished run has %d files, %v", len(got), err)
	}
	kept, err := r.DevicePasswords(ctx, repotest.JobUDID)
	if err != nil || len(kept) != 1 || string(kept[0].Password) != "of the phone" {
		t.Errorf("%d passwords, %v", len(kept), err)
	}
	known, err := check.PacksRead(ctx, repo.Store(r))
	if err != nil || known < 5 {
		t.Errorf("checks know of %d packs, %v", known, err)
	}
	if st, err := r.ParityStatus(ctx); err != nil || st.Groups < 2 || st.Percent != 50 || len(st.Damaged)+len(st.Missing) > 0 {
		t.Errorf("parity: %+v, %v", st, err)
	}
	rep := verifyRecords(t, be.Clone(), 1, 2, 3)
	if len(rep.Unreferenced) == 0 {
		t.Error("check reports no unreferenced file, want at least the replaced record")
	}

	t.Run("prune", func(t *testing.T) {
		be := be.Clone()
		r := openRecords(t, be)
		l, err := r.Lock(ctx, repo.LockPrune, "prune")
		if err != nil {
			t.Fatal(err)
		}
		if err := repotest.ForgetDays(ctx, r, 1); err != nil {
			t.Fatal(err)
		}
		rep, err := r.Prune(ctx, repotest.NoWaste)
		if err != nil || rep.RemovedPacks == 0 || len(rep.Waiting) > 0 || rep.PendingPacks > 0 {
			t.Errorf("%+v, %v", rep, err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if left := append(repotest.FilesIn(t, be, repotest.LocksDir), repotest.FilesIn(t, be, repotest.PrunesDir)...); len(left) > 0 {
			t.Errorf("%v are left", left)
		}
		verifyRecords(t, be, 2, 3)
		if runs, _, err := openRecords(t, be).Unfinished(ctx); err != nil || len(runs) != 1 {
			t.Errorf("%d unfinished runs, %v", len(runs), err)
		}
	})

	t.Run("heal", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(repotest.DamageSeed, 5))
		// Two packs are newer than the parity files, which do not protect them.
		for dir, want := range map[string]int{repotest.PacksDir: 8, repotest.SnapshotsDir: 4} {
			healed := 0
			for _, name := range repotest.FilesIn(t, be, dir) {
				be := be.Clone()
				repotest.Flip(t, be, name, rng.IntN(1<<20))
				r := openRecords(t, be)
				l, err := r.Lock(ctx, repo.LockExclusive, "repair")
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.HealFromParity(ctx, repo.RepairOptions{})
				if err = errors.Join(err, l.Release()); err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(repotest.Content(t, be)[name], pristine[name]) {
					healed++
				}
			}
			if healed != want {
				t.Errorf("%d files of %s healed, want %d of %d", healed, dir, want, len(repotest.FilesIn(t, be, dir)))
			}
		}
	})

	t.Run("mirror", func(t *testing.T) {
		source, target := memory.New(), be.Clone()
		for name, b := range pristine {
			if kind := repotest.Folder(name); kind != "mirrored" && kind != "locks" {
				if err := source.Put(ctx, name, b); err != nil {
					t.Fatal(err)
				}
			}
		}
		repotest.Remove(t, target, repotest.FilesIn(t, target, repotest.LocksDir)...)
		third, err := repotest.FindDay(ctx, openRecords(t, source), 3)
		if err != nil {
			t.Fatal(err)
		}
		repotest.Remove(t, source, repotest.SnapshotsDir+third.ID.String())
		// The mirror notes say that this record came from the source, so the
		// mirror removes it, too, when 14 later runs have missed it.
		for range 14 {
			if err := mirrorOnce(source, target); err != nil {
				t.Error(err)
			}
			verifyRecords(t, target, 1, 2, 3)
		}
		if err := mirrorOnce(source, target); err != nil {
			t.Error(err)
		}
		verifyRecords(t, target, 1, 2)
		notes := repotest.FilesIn(t, be, "mirrored/")
		withoutNotes := be.Clone()
		repotest.Remove(t, withoutNotes, append(notes, repotest.FilesIn(t, be, repotest.LocksDir)...)...)
		if err := mirrorOnce(source, withoutNotes); !errors.Is(err, mirror.ErrRefused) {
			t.Errorf("without mirror notes: %v", err)
		}
	})
	if !maps.EqualFunc(pristine, repotest.Content(t, be), bytes.Equal) {
		t.Error("reading has changed something")
	}
}
