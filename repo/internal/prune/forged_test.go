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
	"github.com/snap-backup/snap/repo/backend"
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
	putFirst(t, be, f)
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

// putFirst stores an index file that is read before all others.
func putFirst(t *testing.T, be backend.Backend, f *index.File) {
	t.Helper()
	first := repotest.FilesIn(t, be, repotest.IndexDir)[0]
	for {
		b, err := f.Seal(repotest.Sealer(t, be, crypto.ForIndexes))
		if err != nil {
			t.Fatal(err)
		}
		if repotest.IndexDir+repo.FileID(blake.Sum(b)).String() < first {
			repotest.PutNamed(t, be, repotest.IndexDir, b)
			return
		}
	}
}

// A copy of a chunk counts as one that stays only if its bases stay, too. The copy that is read
// first is noise, so usage does not know these bases.
func TestPruneBelievesNoCopyWithoutItsBases(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	photo, base, other := repotest.Noise(1, 9000), repotest.Noise(2, 9000), repotest.Noise(3, 9000)
	copy(base[100:], photo[100:8000])
	honest := repotest.PutPack(t, r, be, pack.Content, repotest.Raw(photo))
	repotest.CommitChunks(t, be, 2, photo)
	repotest.PutPack(t, r, be, pack.Content, repotest.Raw(base))
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, photo, base), repotest.Raw(other))
	repotest.CommitChunks(t, be, 3, other)
	noise := repotest.Noise(4, 20000)
	id := pack.Name(noise)
	if err := be.Put(t.Context(), repotest.PackName(id), noise); err != nil {
		t.Fatal(err)
	}
	f := &index.File{}
	f.Add(id, int64(len(noise)), &pack.Header{Kind: pack.Content, Blocks: []pack.Block{
		{Offset: 8, Stored: 9100, Encoding: pack.Zstd, Chunks: []pack.Chunk{{ID: r.NewHasher().ID(photo), Length: uint32(len(photo))}}},
	}})
	putFirst(t, be, f)
	opts := repo.PruneOptions{MaxUnused: func(int64) int64 { return 1 << 40 }}
	if _, err := repotest.Prune(t.Context(), be, opts); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("prune: %v", err)
	}
	if !slices.Contains(repotest.FilesIn(t, be, repotest.PacksDir), honest) {
		t.Error("the pack that has the chunk is gone")
	}
}
