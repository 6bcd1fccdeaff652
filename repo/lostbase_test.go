package repo

import (
	"context"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// TestWhatNeedsALostPackIsStoredAnew loses the pack that others are deltas
// against: their chunks are there and of no use, so storing the same content
// again must store it in full, and heal the snapshots that have it.
func TestWhatNeedsALostPackIsStoredAnew(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	r := create(t, be)
	d := newDiary(60)
	var parent *Snapshot
	var days []*Snapshot
	var want []files
	for day := range 4 {
		d.next(day)
		want = append(want, d.files())
		parent = storeAfter(t, r, want[day], day+1, parent)
		days = append(days, parent)
	}
	// The first content pack holds all that was stored in full.
	var base string
	for _, p := range r.index.Packs() {
		if name := packName(p.ID); base == "" && p.Kind == 0 {
			base = name
		}
	}
	if countDeltaBlocks(r) == 0 || !strings.HasPrefix(base, packsDir) {
		t.Fatal("nothing was stored as a delta")
	}
	if err := be.Delete(ctx, base); err != nil {
		t.Fatal(err)
	}

	r = open(t, be)
	if len(r.IndexDamage()) != 1 {
		t.Errorf("damage: %v", r.IndexDamage())
	}
	again := storeAfter(t, r, want[3], 5, days[3])
	r = open(t, be)
	for _, s := range []*Snapshot{again, days[3]} {
		got, err := restore(ctx, r, s)
		if err == nil {
			err = sameFiles(got, want[3])
		}
		if err != nil {
			t.Errorf("snapshot of day %d: %v", s.Time.Day(), err)
		}
	}
	report, err := r.Check(ctx, CheckOptions{})
	if err != nil || len(report.Suffering) != 3 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

func countDeltaBlocks(r *Repo) int {
	n := 0
	for _, p := range r.index.Packs() {
		for _, ref := range p.Blocks {
			if _, dict := r.index.Dependencies(ref); len(dict) > 0 {
				n++
			}
		}
	}
	return n
}
