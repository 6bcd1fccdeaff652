package store_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// cacheSizes are for results that must not depend on the cache.
var cacheSizes = map[string]int{"no cache": 1, "small cache": 20 << 10, "large cache": 1 << 20}

func withCache(t testing.TB, be backend.Backend, size int) *repo.Repo {
	t.Helper()
	opts := repotest.Options(3)
	opts.Cache = size
	return repotest.MustOpenWith(t, be, repotest.Secret, opts)
}

func TestDeltaChain(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	versions := repotest.Versions(pack.MaxDepth + 2)
	repotest.PutPack(t, r, be, pack.Content, repotest.Raw(versions[0]))
	for i, v := range versions[1:] {
		name := repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v, versions[i]))
		if size := len(repotest.Content(t, be)[name]); size > 600 {
			t.Errorf("version %d was stored in %d bytes", i+1, size)
		}
	}
	last := pack.MaxDepth + 1
	for name, size := range cacheSizes {
		r := withCache(t, be, size)
		if err := repotest.ReadChunks(t, r, versions[:last]...); err != nil {
			t.Errorf("%s: depth %d: %v", name, pack.MaxDepth, err)
		}
		if err := repotest.ReadChunks(t, r, versions[last]); err == nil {
			t.Errorf("%s: a chain of %d was read", name, last)
		}
		// Read only the end of the chain, with an empty cache.
		if err := repotest.ReadChunks(t, withCache(t, be, size), versions[last-1]); err != nil {
			t.Errorf("%s: depth %d at once: %v", name, pack.MaxDepth, err)
		}
	}
	repotest.CommitChunks(t, be, 1, versions[:last]...)
	repotest.CommitChunks(t, be, 2, versions[0], versions[last])
	if n := repotest.CountAffected(t, be); n != 1 {
		t.Errorf("%d snapshots are affected, want the one with the chain that is too long", n)
	}
	storeAgain(t, be, versions[last])
}

// storeAgain backs up content that is in a pack and cannot be read. That makes
// the content readable and repairs the snapshots that need it.
func storeAgain(t testing.TB, be backend.Backend, content []byte) {
	t.Helper()
	if _, err := repotest.Store(context.Background(), repotest.MustOpen(t, be), repotest.Files{"again": content}, 3); err != nil {
		t.Fatal(err)
	}
	if err := repotest.ReadChunks(t, repotest.MustOpen(t, be), content); err != nil {
		t.Errorf("a backup relied on what cannot be read: %v", err)
	}
	if n := repotest.CountAffected(t, be); n != 0 {
		t.Errorf("%d snapshots are affected after the content was stored again", n)
	}
}

func TestDeltaCycles(t *testing.T) {
	t.Parallel()
	v := repotest.Versions(4)
	for name, blocks := range map[string]func(r *repo.Repo) []repotest.Block{
		"itself": func(r *repo.Repo) []repotest.Block { return []repotest.Block{repotest.Delta(r, v[0], v[0])} },
		"two": func(r *repo.Repo) []repotest.Block {
			return []repotest.Block{repotest.Delta(r, v[0], v[1]), repotest.Delta(r, v[1], v[0])}
		},
		"three": func(r *repo.Repo) []repotest.Block {
			return []repotest.Block{repotest.Delta(r, v[0], v[1]), repotest.Delta(r, v[1], v[2]), repotest.Delta(r, v[2], v[0], v[1])}
		},
	} {
		t.Run(name, func(t *testing.T) {
			be := memory.New()
			r := repotest.Create(t, be)
			for _, b := range blocks(r) {
				repotest.PutPack(t, r, be, pack.Content, b)
			}
			repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[3]))
			for cache, size := range cacheSizes {
				r := withCache(t, be, size)
				var g sync.WaitGroup
				for i := range 8 {
					g.Go(func() {
						if err := repotest.ReadChunks(t, r, v[0]); err == nil {
							t.Errorf("%s: reader %d read a cycle", cache, i)
						}
						if err := repotest.ReadChunks(t, r, v[3]); err != nil {
							t.Errorf("%s: reader %d: beside the cycle: %v", cache, i, err)
						}
					})
				}
				g.Wait()
			}
			repotest.CommitChunks(t, be, 1, v[0], v[3])
			repotest.CommitChunks(t, be, 2, v[3])
			if n := repotest.CountAffected(t, be); n != 1 {
				t.Errorf("%d snapshots are affected", n)
			}
			storeAgain(t, be, v[0])
		})
	}
}

func TestDeltaWithoutDictionary(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	v := repotest.Versions(3)
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]), repotest.Delta(r, v[2], v[1]), repotest.Raw([]byte("beside")))
	r = repotest.MustOpen(t, be)
	for i := 1; i <= 2; i++ {
		if err := repotest.ReadChunks(t, r, v[i]); err == nil {
			t.Errorf("version %d was read without its dictionary", i)
		}
	}
	repotest.CommitChunks(t, be, 1, v[2])
	repotest.CommitChunks(t, be, 2, []byte("beside"))
	if n := repotest.CountAffected(t, be); n != 1 {
		t.Errorf("%d snapshots are affected", n)
	}
	// A check of the structure alone finds the loss, too.
	report, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{})
	if err != nil || len(report.Affected) != 1 {
		t.Errorf("without reading packs: %+v, %v", report, err)
	}
}

// A dictionary may be as long as the limit, and its first and last bytes are
// usable.
func TestDeltaDictionarySizes(t *testing.T) {
	if testing.Short() {
		t.Skip("it encodes with dictionaries of 9 MB")
	}
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	var parts [][]byte
	for i := range 9 {
		parts = append(parts, repotest.Noise(uint64(60+i), 1<<20))
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(parts[i]))
	}
	// No match can be further back than the window of 8 MiB.
	fits := append(bytes.Clone(parts[0][64<<10:][:15<<10]), parts[7][1<<20-15<<10:]...)
	tooMuch := append(bytes.Clone(fits), '!')
	name := repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, fits, parts[:8]...))
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, tooMuch, parts...))
	if size := len(repotest.Content(t, be)[name]); size > 2<<10 {
		t.Errorf("30 KiB near both ends of a dictionary took %d bytes", size)
	}
	r = repotest.MustOpen(t, be)
	if err := repotest.ReadChunks(t, r, fits); err != nil {
		t.Errorf("a dictionary of %d bytes: %v", pack.MaxDictSize, err)
	}
	if err := repotest.ReadChunks(t, r, tooMuch); err == nil {
		t.Error("a dictionary over the limit was taken")
	}
	repotest.CommitChunks(t, be, 1, fits)
	repotest.CommitChunks(t, be, 2, tooMuch)
	if n := repotest.CountAffected(t, be); n != 1 {
		t.Errorf("%d snapshots are affected", n)
	}
}

// A damaged base affects what is encoded against it, and nothing else.
func TestDamagedBase(t *testing.T) {
	t.Parallel()
	v := repotest.Versions(4)
	for _, where := range []int{12, 40, -40} { // in the block, in the header
		be := memory.New()
		r := repotest.Create(t, be)
		base := repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[0]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[2], v[1]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[3]))
		repotest.CommitChunks(t, be, 1, v[0])
		repotest.CommitChunks(t, be, 2, v[1], v[3])
		repotest.CommitChunks(t, be, 3, v[2])
		repotest.CommitChunks(t, be, 4, v[3])
		if n := repotest.CountAffected(t, be); n != 0 {
			t.Fatalf("%d snapshots are affected before the damage", n)
		}
		file := repotest.Content(t, be)[base]
		want := 3
		if where < 0 {
			where, want = len(file)+where, -1
		}
		file[where] ^= 4
		if want > 0 {
			file[where+9] ^= 4 // snap corrects one wrong byte
		}
		if err := be.Set(base, file); err != nil {
			t.Fatal(err)
		}
		report, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{ReadData: 1})
		if err != nil || report.Clean() {
			t.Fatalf("%+v, %v", report, err)
		}
		for _, p := range report.Problems {
			if p.File != base {
				t.Errorf("the report names %s, damaged is %s", p.File, base)
			}
		}
		if want < 0 {
			// The index has the same information as the header, so nothing is lost.
			if len(report.Affected) != 0 {
				t.Errorf("damaged header: %+v", report.Affected)
			}
			continue
		}
		if n := repotest.CountAffected(t, be); n != want {
			t.Errorf("%d snapshots are affected, want %d", n, want)
		}
		if err := be.Delete(context.Background(), base); err != nil {
			t.Fatal(err)
		}
		if n := repotest.CountAffected(t, be); n != want {
			t.Errorf("base deleted: %d snapshots are affected, want %d", n, want)
		}
	}
}

// A chunk with a full copy in a second pack is not lost with its delta.
func TestSecondCopyOfADelta(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	v := repotest.Versions(2)
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]))
	repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[1]))
	repotest.CommitChunks(t, be, 1, v[1])
	repotest.CountAffected(t, be) // check and restore must agree, whichever copy they use
}
