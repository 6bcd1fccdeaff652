package repair_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// retiredRepo returns a repository of three days. A prune has put packs on a prune
// list, and a backup that began before the prune has used these packs for day 2.
func retiredRepo(t *testing.T) *memory.Backend {
	t.Helper()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	opts := repotest.SmallPacks(41)
	opts.Now, opts.Refresh = time.Now, -1
	a, err := repotest.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Lock(ctx, repo.LockWrite, "backup")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	rep, err := repotest.Prune(ctx, be, repotest.NoWaste, 2)
	if err != nil || rep.PendingPacks == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := repotest.StoreAfter(ctx, a, repotest.Day(2), 2, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	return be
}

// If a snapshot needs packs that are on a prune list, a repair of a damaged or missing
// index lists these packs, and the next prune keeps them.
func TestRepairIndexKeepsRetired(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := retiredRepo(t)
	for _, gone := range []bool{false, true} {
		be := base.Clone()
		for name, b := range repotest.Content(t, be) {
			if !strings.HasPrefix(name, repotest.IndexDir) {
				continue
			}
			if err := be.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
			if gone {
				continue
			}
			b = slices.Clone(b)
			b[len(b)/2] ^= 1
			if err := be.Put(ctx, name, b); err != nil {
				t.Fatal(err)
			}
		}
		r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(60))
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Lock(ctx, repo.LockExclusive, "repair")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.RepairIndex(ctx, repo.RepairOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Errorf("gone %v, repaired: %v", gone, err)
		}
		if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
			t.Errorf("gone %v, prune: %v", gone, err)
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Errorf("gone %v, pruned: %v", gone, err)
		}
	}
}
