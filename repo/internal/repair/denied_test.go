package repair_test

import (
	"context"
	"slices"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/repotest"
)

// A file that this process has no permission to read may be good. No repair removes it,
// while one with a bad sector is given up.
func TestRepairsKeepDeniedFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2)
	pack := repotest.FilesIn(t, base, repotest.PacksDir)[0]
	record := repotest.FilesIn(t, base, repotest.SnapshotsDir)[0]
	for _, tt := range []struct {
		err  error
		kept bool
	}{{syscall.EACCES, true}, {syscall.EIO, false}} {
		be := base.Clone()
		store := fault.New(be, fault.Unreadable(pack, tt.err))
		err := repotest.Repair(ctx, store, 61, func(r *repo.Repo) error {
			_, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{Options: repo.RepairOptions{DryRun: !tt.kept}})
			return err
		})
		if (err != nil) != tt.kept || tt.kept && !backend.IsDenied(err) {
			t.Errorf("%v: repair snapshots: %v", tt.err, err)
		}
		err = repotest.Repair(ctx, store, 62, func(r *repo.Repo) error {
			rep, err := r.RepairPacks(ctx, repo.RepairOptions{})
			if err == nil && (len(rep.Denied) == 1) != tt.kept {
				t.Errorf("%v: denied %v, damaged %+v", tt.err, rep.Denied, rep.Damaged)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if tt.kept {
			if rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil || len(rep.Problems) > 0 || len(rep.Unreferenced)+len(rep.Marked) > 0 {
				t.Errorf("%v: %+v, %v", tt.err, rep, err)
			}
		}
		err = repotest.Repair(ctx, fault.New(be, fault.Unreadable(record, tt.err)), 63, func(r *repo.Repo) error {
			rep, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{RemoveDamaged: true})
			if err == nil && (len(rep.Healed) == 0) != tt.kept { // the ledger has a copy
				t.Errorf("%v: healed %v", tt.err, rep.Healed)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, gone := be.Stat(ctx, record); gone != nil && tt.kept {
			t.Errorf("%v: the record: %v", tt.err, gone)
		}
	}
}

// A file of the ledger that this process has no permission to read stays, too, and is named.
func TestRepairKeepsDeniedLedger(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2)
	name := repotest.FilesIn(t, base, repotest.LedgerDir)[0]
	for _, err := range []error{syscall.EACCES, syscall.EIO} {
		denied := backend.IsDenied(err)
		for _, dryRun := range []bool{true, false} {
			be := base.Clone()
			err := repotest.Repair(ctx, fault.New(be, fault.Unreadable(name, err)), 64, func(r *repo.Repo) error {
				rep, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{Options: repo.RepairOptions{DryRun: dryRun}})
				if err == nil && (slices.Contains(rep.Denied, name) != denied || slices.Contains(rep.Ledger, name) == denied || rep.Lost() != denied) {
					t.Errorf("denied: %v, got %+v", denied, rep)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := be.Stat(ctx, name); (err == nil) != (denied || dryRun) {
				t.Errorf("denied: %v, dry run: %v, the file: %v", denied, dryRun, err)
			}
		}
	}
}
