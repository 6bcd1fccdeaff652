package record_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// records returns the files of all snapshot records.
func records(t *testing.T, be *memory.Backend) map[string][]byte {
	t.Helper()
	all := repotest.Content(t, be)
	maps.DeleteFunc(all, func(name string, _ []byte) bool { return repotest.Folder(name) != "snapshots" })
	return all
}

func loseRecords(t *testing.T, be *memory.Backend) {
	t.Helper()
	repotest.Remove(t, be, repotest.FilesIn(t, be, repotest.SnapshotsDir)...)
}

// Records that are lost, all or some, with a backup and a prune after it, come back byte for
// byte, as they were after all changes. Those that were forgotten do not.
func TestLostRecordsComeBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3, 4)
	r := repotest.MustOpen(t, base)
	if _, err := r.Lock(ctx, repo.LockWrite, "test"); err != nil {
		t.Fatal(err)
	}
	s, err := repotest.FindDay(ctx, r, 2)
	if err == nil {
		_, err = r.ChangeSnapshot(ctx, s, repo.Labels{Note: "note", Pin: &repo.Pin{Reason: "why"}})
	}
	if err == nil {
		err = repotest.ForgetDays(ctx, r, 4)
	}
	if err != nil {
		t.Fatal(err)
	}
	repotest.RemoveAllLocks(base)
	want := records(t, base)
	for lost := 1; lost <= len(want); lost++ {
		be := base.Clone()
		repotest.Remove(t, be, slices.Sorted(maps.Keys(want))[:lost]...)
		for range 2 { // before and after a backup
			if _, err := repotest.Prune(ctx, be, repotest.NoWaste); !errors.Is(err, repo.ErrDamaged) {
				t.Fatalf("%d lost: prune = %v", lost, err)
			}
			if _, err := repotest.StoreDay(ctx, be, 5); err != nil {
				t.Fatal(err)
			}
		}
		missing, err := repotest.MustOpen(t, be).MissingSnapshots(ctx)
		if err != nil || len(missing) != lost {
			t.Fatalf("%d lost, and %d missing: %v", lost, len(missing), err)
		}
		if err := repotest.RepairSnapshots(be); err != nil {
			t.Fatal(err)
		}
		got := records(t, be)
		for name, b := range want {
			if !bytes.Equal(got[name], b) {
				t.Errorf("%d lost: %s did not come back as it was", lost, name)
			}
		}
		if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
			t.Error(err)
		}
		if err := repotest.Verify(be, 1, 2, 3, 5, 5); err != nil {
			t.Error(err)
		}
	}
}

// A lost record can be forgotten.
func TestForgetLostRecord(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	s, err := repotest.FindDay(ctx, repotest.MustOpen(t, be), 1)
	if err != nil {
		t.Fatal(err)
	}
	repotest.Remove(t, be, repotest.SnapshotsDir+s.ID.String())
	if err := repotest.MustOpen(t, be).Forget(ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Error(err)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Error(err)
	}
	if err := repotest.Verify(be, 2); err != nil {
		t.Error(err)
	}
}

// A repository of an older program has no ledger. The next backup enters all snapshots, then
// its own.
func TestOldRepositoryGetsLedger(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	repotest.RemoveLedger(t, be)
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Error(err)
	}
	if _, err := repotest.StoreDay(ctx, be, 3); err != nil {
		t.Fatal(err)
	}
	if n := len(repotest.FilesIn(t, be, repotest.LedgerDir)); n != 2 {
		t.Errorf("%d files", n)
	}
	loseRecords(t, be)
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2, 3); err != nil {
		t.Error(err)
	}
}

// A program that does not know the ledger has changed the labels of a snapshot: that is no
// loss, not even when the snapshot is forgotten later.
func TestChangedWithoutLedger(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	before := be.Clone()
	r := repotest.MustOpen(t, be)
	s, err := repotest.FindDay(ctx, r, 1)
	if err == nil {
		_, err = r.Lock(ctx, repo.LockWrite, "test")
	}
	if err == nil {
		_, err = r.ChangeSnapshot(ctx, s, repo.Labels{Note: "note"})
	}
	if err != nil {
		t.Fatal(err)
	}
	repotest.RemoveAllLocks(be)
	repotest.RemoveLedger(t, be)
	for name, b := range repotest.Content(t, before) {
		if repotest.Folder(name) == "ledger" {
			if err := be.Put(ctx, name, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Error(err)
	}
	if err := repotest.ForgetDays(ctx, repotest.MustOpen(t, be), 1); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 2); err != nil {
		t.Error(err)
	}
}

// A record that is back after it was forgotten counts, and a repair protects it again.
func TestForgottenRecordIsBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	old := be.Clone()
	if err := repotest.ForgetDays(ctx, repotest.MustOpen(t, be), 1); err != nil {
		t.Fatal(err)
	}
	for name, b := range records(t, old) {
		if err := be.Set(name, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Error(err)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	loseRecords(t, be)
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Error(err)
	}
}

// While a file of the ledger is damaged, nothing is removed: it may know of lost records.
func TestDamagedLedger(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	name := repotest.FilesIn(t, be, repotest.LedgerDir)[0]
	repotest.Flip(t, be, name, 70)
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("prune = %v", err)
	}
	if _, err := repotest.StoreDay(ctx, be, 3); err != nil {
		t.Error(err)
	}
	if err := repotest.ForgetDays(ctx, repotest.MustOpen(t, be), 2); err != nil {
		t.Error(err)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Error(err)
	}
	if err := repotest.Verify(be, 1, 3); err != nil {
		t.Error(err)
	}
	loseRecords(t, be)
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 3); err != nil {
		t.Error(err)
	}
}

// The only file that says that a snapshot was forgotten is lost, and its data is gone. The
// snapshot seems missing. A repair brings it back with what is left of it, and it can be
// forgotten again.
func TestRemovalIsLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	before := repotest.FilesIn(t, be, repotest.LedgerDir)
	if err := repotest.ForgetDays(ctx, repotest.MustOpen(t, be), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	for _, name := range repotest.FilesIn(t, be, repotest.LedgerDir) {
		if !slices.Contains(before, name) {
			repotest.Remove(t, be, name)
		}
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("prune = %v", err)
	}
	back := be.Clone()
	if err := repotest.RepairSnapshots(back); err != nil {
		t.Fatal(err)
	}
	for _, be := range []*memory.Backend{be, back} { // with and without a repair
		r := repotest.MustOpen(t, be)
		missing, err := r.MissingSnapshots(ctx)
		list, _, lerr := r.Snapshots(ctx)
		if err := errors.Join(err, lerr); err != nil || len(missing)+len(list) != 3 {
			t.Fatal(missing, list, err)
		}
		if err := r.Forget(ctx, slices.Concat(missing, list)[0].ID); err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
			t.Error(err)
		}
		if err := repotest.Verify(be, 2, 3); err != nil {
			t.Error(err)
		}
	}
}
