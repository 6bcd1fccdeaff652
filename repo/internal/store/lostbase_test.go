package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// TestContentWithoutItsBaseIsStoredAgain removes a pack that holds the bases of
// deltas in other packs. The chunks of these deltas exist but cannot be decoded, so
// storing the same content again must store it in full, and repair the snapshots
// that have it.
func TestContentWithoutItsBaseIsStoredAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	d := repotest.NewDiary(60)
	var parent *repo.Snapshot
	var days []*repo.Snapshot
	var want []repotest.Files
	for day := range 4 {
		d.Next(day)
		want = append(want, d.Files())
		parent = repotest.MustStoreAfter(t, r, want[day], day+1, parent)
		days = append(days, parent)
	}
	// The first content pack has everything that was stored in full.
	var base string
	for _, p := range r.Index().Packs() {
		if name := repotest.PackName(p.ID); base == "" && p.Kind == 0 {
			base = name
		}
	}
	if repotest.CountDeltas(r) == 0 || !strings.HasPrefix(base, repotest.PacksDir) {
		t.Fatal("nothing was stored as a delta")
	}
	if err := be.Delete(ctx, base); err != nil {
		t.Fatal(err)
	}

	r = repotest.MustOpen(t, be)
	if len(r.IndexDamage()) != 1 {
		t.Errorf("damage: %v", r.IndexDamage())
	}
	again := repotest.MustStoreAfter(t, r, want[3], 5, days[3])
	r = repotest.MustOpen(t, be)
	for _, s := range []*repo.Snapshot{again, days[3]} {
		got, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = got.Same(want[3])
		}
		if err != nil {
			t.Errorf("snapshot of day %d: %v", s.Time.Day(), err)
		}
	}
	report, err := r.Check(ctx, repo.CheckOptions{})
	if err != nil || len(report.Affected) != 3 {
		t.Errorf("check: %+v, %v", report, err)
	}
}
