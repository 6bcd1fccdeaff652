package record_test

import (
	"context"
	"errors"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/repotest"
)

// A repair that was interrupted does not bring back what was removed afterwards: a
// forgotten snapshot, an earlier record of one, a backup password, a key.
func TestInterruptedRepairBringsNothingBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	r := repotest.MustOpen(t, be)
	l, err := r.Lock(ctx, repo.LockWrite, "test")
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(repo.UnfinishedBackup, repotest.JobUDID)
	if err == nil {
		err = repotest.Receive(ctx, r, u, "aa/first", []byte("first"))
	}
	key, kerr := r.AddKey(ctx, []byte("another"), repotest.SlotInfo)
	if err := errors.Join(err, kerr, r.KeepDevicePassword(ctx, repotest.JobUDID, []byte("password")), repotest.CertifyAll(ctx, be, repotest.Secret, 71)); err != nil {
		t.Fatal(err)
	}
	before := repotest.Content(t, be)
	for name, b := range before {
		if dir := repotest.Folder(name) + "/"; dir != repotest.LocksDir && dir != "config/" {
			be.Set(replace.Dir+name, b)
		}
	}
	forgotten, err := repotest.FindDay(ctx, r, 1)
	if err != nil {
		t.Fatal(err)
	}
	tagged, err := repotest.FindDay(ctx, r, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, terr := r.ChangeSnapshot(ctx, tagged, repo.Labels{Tags: []string{"kept"}})
	_, perr := r.ForgetDevicePasswords(ctx, repotest.JobUDID)
	_, rerr := r.RemoveKey(ctx, key.String())
	if err := errors.Join(terr, perr, rerr, r.Forget(ctx, forgotten.ID), r.RemoveUnfinished(ctx, u), l.Release()); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil { // also removes certificates and index files
		t.Fatal(err)
	}
	removed := 0
	after := repotest.Content(t, be)
	if _, err := replace.Finish(ctx, be); err != nil {
		t.Fatal(err)
	}
	for name := range before {
		if dir := repotest.Folder(name) + "/"; after[name] != nil || dir == repotest.LocksDir || dir == repotest.PacksDir {
			continue
		}
		removed++
		if repotest.Content(t, be)[name] != nil {
			t.Errorf("%s was removed and came back", name)
		}
	}
	if removed < 7 {
		t.Errorf("%d files were removed", removed)
	}
	if err := repotest.Verify(be, 2, 3); err != nil {
		t.Error(err)
	}
}

// A prune waits for a repair that was interrupted after it removed a damaged record.
func TestPruneBesideAnInterruptedRepair(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	s, err := repotest.FindDay(ctx, repotest.MustOpen(t, be), 1)
	if err != nil {
		t.Fatal(err)
	}
	name := repotest.SnapshotsDir + s.ID.String()
	be.Set(replace.Dir+name, repotest.Content(t, be)[name])
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Errorf("the record is in its place: %v", err)
	}
	repotest.Remove(t, be, name)
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("prune: %v", err)
	}
	if err := errors.Join(repotest.RepairIndex(be), repotest.Verify(be, 1, 2)); err != nil {
		t.Error(err)
	}
}
