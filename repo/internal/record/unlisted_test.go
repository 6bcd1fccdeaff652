package record_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/repotest"
)

// The files of the ledger cannot be listed. Every snapshot can be read. Whatever would need an
// entry fails, and changes nothing. So does a prune: there may be lost records.
func TestUnlistedLedger(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2)
	for _, cause := range []error{syscall.EACCES, fmt.Errorf("%w, but a file", backend.ErrNotFolder)} {
		be := base.Clone()
		store := fault.New(be, fault.On(fault.List, repotest.LedgerDir, fault.From(1, cause)))
		for day := 1; day <= 2; day++ {
			if _, err := repotest.FindDay(ctx, repotest.MustOpen(t, store), day); err != nil {
				t.Errorf("%v: %v", cause, err)
			}
		}
		rep, err := repotest.MustOpen(t, store).Check(ctx, repo.CheckOptions{ReadData: 1})
		if err != nil || len(rep.Problems) != 1 || rep.Problems[0].File != repotest.LedgerDir || !rep.Problems[0].Fatal {
			t.Errorf("%v: check: %+v, %v", cause, rep, err)
		}
		before := records(t, be)
		for name, change := range map[string]func() error{
			"prune":  func() error { _, err := repotest.Prune(ctx, store, repotest.NoWaste); return err },
			"repair": func() error { return repotest.RepairSnapshots(store) },
			"store":  func() error { _, err := repotest.StoreDay(ctx, store, 3); return err },
			"forget": func() error { return repotest.ForgetDays(ctx, repotest.MustOpen(t, store), 1) },
			"label": func() error {
				r := repotest.MustOpen(t, store)
				s, err := repotest.FindDay(ctx, r, 1)
				if err == nil {
					_, err = r.Lock(ctx, repo.LockWrite, "test")
				}
				if err == nil {
					_, err = r.ChangeSnapshot(ctx, s, repo.Labels{Note: "note"})
				}
				return err
			},
		} {
			if err := change(); !errors.Is(err, repo.ErrDamaged) || !errors.Is(err, cause) {
				t.Errorf("%v: %s = %v", cause, name, err)
			}
			repotest.RemoveAllLocks(be)
		}
		if after := records(t, be); !maps.EqualFunc(before, after, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("%v: records were changed", cause)
		}
		if err := repotest.Verify(be, 1, 2); err != nil {
			t.Error(err)
		}
	}
}
