package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// spoil flips a bit in the middle of a chunk's block, and returns the name of
// its pack.
func spoil(t testing.TB, be *memory.Backend, plain []byte) string {
	t.Helper()
	r := repotest.MustOpen(t, be)
	loc, ok := r.Index().Lookup(r.NewHasher().ID(plain))
	if !ok {
		t.Fatal("no such chunk")
	}
	_, b := r.Index().Block(loc.Block)
	return flip(t, be, repotest.PackName(loc.Pack), int(b.Offset+b.Stored/2))
}

func flip(t testing.TB, be *memory.Backend, name string, at int) string {
	t.Helper()
	file, err := backend.ReadAll(context.Background(), be, name, pack.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	file[at] ^= 16
	file[at+9] ^= 16
	if err := be.Set(name, file); err != nil {
		t.Fatal(err)
	}
	return name
}

// A block that needs a damaged base is decoded with another copy of that base, at
// any depth, and check reports nothing as lost.
func TestOtherCopyOfABase(t *testing.T) {
	t.Parallel()
	v := repotest.Versions(6)
	for name, damage := range map[string][]int{
		"the base": {0}, "in between": {2}, "the last": {4}, "two": {0, 3}, "every first copy": {0, 1, 2, 3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			be := memory.New()
			r := repotest.Create(t, be)
			for range 2 {
				repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[0]))
				for i := 1; i < 5; i++ {
					repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[i], v[i-1]))
				}
			}
			repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[5]))
			repotest.CommitChunks(t, be, 1, v[4])
			repotest.CommitChunks(t, be, 2, v[:5]...)
			repotest.CommitChunks(t, be, 3, v[5])
			var bad []string
			for _, i := range damage {
				bad = append(bad, spoil(t, be, v[i]))
			}
			for cache, size := range cacheSizes {
				for i := range v {
					if err := repotest.ReadChunks(t, withCache(t, be, size), v[i]); err != nil {
						t.Errorf("%s: version %d: %v", cache, i, err)
					}
				}
			}
			if n := repotest.CountAffected(t, be); n != 0 {
				t.Errorf("%d snapshots are affected", n)
			}
			report, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{ReadData: 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range report.Problems {
				if !strings.Contains(strings.Join(bad, " "), p.File) {
					t.Errorf("%s is blamed, damaged are %v", p.File, bad)
				}
			}
			if report.Clean() {
				t.Error("the damage went unnoticed")
			}
		})
	}
}

// If all copies of a base are damaged, there are very many paths to it, through the
// copies of the blocks that need it. A reader must not try all of these paths.
func TestManyDamagedCopies(t *testing.T) {
	t.Parallel()
	const copies = 4
	v := repotest.Versions(10)
	be := memory.New()
	r := repotest.Create(t, be)
	for range copies {
		base := repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[0]))
		for i := 1; i < len(v); i++ {
			repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[i], v[i-1]))
		}
		flip(t, be, base, 50)
	}
	counting := fault.New(be)
	ro, err := repotest.Open(context.Background(), counting, repotest.Secret, repotest.Options(3))
	if err != nil {
		t.Fatal(err)
	}
	before := counting.Count(fault.ReadAt)
	if err := repotest.ReadChunks(t, ro, v[len(v)-1]); err == nil {
		t.Fatal("what is lost was read")
	}
	if reads := counting.Count(fault.ReadAt) - before; reads > 20*copies*len(v) {
		t.Errorf("%d reads to find that %d copies of %d versions are lost", reads, copies, len(v))
	}
	repotest.CommitChunks(t, be, 1, v[len(v)-1])
	if n := repotest.CountAffected(t, be); n != 1 {
		t.Errorf("%d snapshots are affected", n)
	}
}

// Two writers may have stored the same two chunks, each as a delta against the
// other, and each also in full.
func TestCyclicCopies(t *testing.T) {
	t.Parallel()
	v := repotest.Versions(3)
	for name, want := range map[string]int{"a full copy is sound": 0, "no full copy is sound": 1} {
		be := memory.New()
		r := repotest.Create(t, be)
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[0]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[1]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[0], v[1]), repotest.Delta(r, v[1], v[0]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[2], v[0]))
		repotest.CommitChunks(t, be, 1, v[2])
		spoil(t, be, v[0])
		if want > 0 {
			spoil(t, be, v[1])
		}
		if n := repotest.CountAffected(t, be); n != want {
			t.Errorf("%s: %d snapshots are affected, want %d", name, n, want)
		}
		if err := repotest.ReadChunks(t, repotest.MustOpen(t, be), v[2]); (err == nil) != (want == 0) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A check reports a snapshot only if no copy of one of its chunks can be read, even
// if the check does not verify the packs with the other copies.
func TestOtherCopyAndAPartialCheck(t *testing.T) {
	t.Parallel()
	v := repotest.Versions(4)
	be := memory.New()
	r := repotest.Create(t, be)
	for range 2 {
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[0]))
	}
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]))
	repotest.CommitChunks(t, be, 1, v[1])
	bad := spoil(t, be, v[0])
	// A pack of the wrong length is always read.
	file := repotest.Content(t, be)[bad]
	if err := be.Set(bad, append(file, 0)); err != nil {
		t.Fatal(err)
	}
	report, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{})
	if err != nil || report.Clean() || len(report.Affected) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}
