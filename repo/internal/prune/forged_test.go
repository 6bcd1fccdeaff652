package prune_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/crypto/blake"
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

// An index file that is read first says that deltas need no bases. No prune removes the packs
// of these bases.
func TestPruneBelievesNoForgedBases(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1, 2, 3)
	x := repotest.MustOpen(t, be).Index()
	f := &index.File{}
	for _, p := range x.Packs() {
		h := repotest.Header(x, p)
		for i := range h.Blocks {
			if b := &h.Blocks[i]; h.Kind == pack.Content && len(b.Dict) > 0 {
				b.Encoding, b.Dict = pack.Zstd, nil
			}
		}
		f.Add(p.ID, p.Size, &h)
	}
	first := repotest.FilesIn(t, be, repotest.IndexDir)[0]
	var name string
	var forged []byte
	for forged == nil || name > first {
		b, err := f.Seal(repotest.Sealer(t, be, crypto.ForIndexes))
		if err != nil {
			t.Fatal(err)
		}
		forged, name = b, repotest.IndexDir+repo.FileID(blake.Sum(b)).String()
	}
	repotest.PutNamed(t, be, repotest.IndexDir, forged)
	packs := repotest.FilesIn(t, be, repotest.PacksDir)
	for range 2 {
		if _, err := repotest.Prune(t.Context(), be, repotest.NoWaste, 1); !errors.Is(err, repo.ErrDamaged) {
			t.Errorf("prune: %v", err)
		}
	}
	if left := repotest.FilesIn(t, be, repotest.PacksDir); !slices.Equal(left, packs) {
		t.Errorf("%d of %d packs are left", len(left), len(packs))
	}
	if err := repotest.RepairIndex(be); err != nil {
		t.Fatal(err)
	}
	rep, err := repotest.Prune(t.Context(), be, repotest.NoWaste)
	if err != nil || rep.RemovedPacks == 0 {
		t.Errorf("after a repair: %v", err)
	}
	if err := repotest.Verify(be, 2, 3); err != nil {
		t.Errorf("after a repair: %v", err)
	}
}
