package prune_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/repotest"
)

// Whoever has the key and may only add files adds packs of noise, and index files that say that
// these have what snapshots need. No prune removes the packs that really have it.
func TestPruneBelievesNoForgedIndex(t *testing.T) {
	t.Parallel()
	days := []int{1, 2, 3}
	refused := 0
	for round := range 8 {
		be := repotest.New(t, days...)
		x := repotest.MustOpen(t, be).Index()
		packs := repotest.FilesIn(t, be, repotest.PacksDir)
		f := &index.File{}
		for i, p := range x.Packs() {
			h := repotest.Header(x, p)
			if h.Kind != pack.Content {
				continue // an attack on metadata is noticed when trees are read
			}
			noise := repotest.Noise(uint64(round*1000+i), int(p.Size))
			id := pack.Name(noise)
			if err := be.Put(t.Context(), repotest.PackName(id), noise); err != nil {
				t.Fatal(err)
			}
			f.Add(id, p.Size, &h)
			if round%2 == 0 {
				f.Add(p.ID, p.Size, &pack.Header{Kind: h.Kind, Blocks: h.Blocks[:1]})
			}
		}
		b, err := f.Seal(repotest.Sealer(t, be, crypto.ForIndexes))
		if err != nil {
			t.Fatal(err)
		}
		repotest.PutNamed(t, be, repotest.IndexDir, b)
		for range 2 {
			if _, err := repotest.Prune(t.Context(), be, repotest.NoWaste); errors.Is(err, repo.ErrDamaged) {
				refused++
			}
		}
		left := repotest.FilesIn(t, be, repotest.PacksDir)
		for _, name := range packs {
			if !slices.Contains(left, name) {
				t.Errorf("round %d: %s is gone", round, name)
			}
		}
		if round > 1 {
			continue
		}
		if err := repotest.Repair(t.Context(), be, 9, func(r *repo.Repo) error {
			_, err := r.RepairPacks(t.Context(), repo.RepairOptions{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Prune(t.Context(), be, repotest.NoWaste); err != nil {
			t.Errorf("after a repair: %v", err)
		}
		if err := repotest.Verify(be, days...); err != nil {
			t.Errorf("after a repair: %v", err)
		}
	}
	if refused == 0 {
		t.Error("no prune was refused, so this test proves nothing")
	}
}
