package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// commitChunks makes a snapshot of one file for each of some chunks.
func commitChunks(t testing.TB, be backend.Backend, day int, chunks ...[]byte) repo.FileID {
	t.Helper()
	ctx := context.Background()
	r := repotest.MustOpen(t, be)
	w := r.NewWriter(ctx)
	defer w.Close()
	b := tree.NewBuilder(w.SaveNode, nil)
	for i, c := range chunks {
		e := tree.Entry{Path: fmt.Sprintf("file%03d", i), Content: tree.Content{Size: int64(len(c)), IDs: []chunk.ID{r.NewHasher().ID(c)}}}
		if err := b.Add(ctx, &e); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish(ctx)
	s := &repo.Snapshot{Root: root, Time: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
	if err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// readAll reads chunks and returns the first error, which must be ErrDamaged.
func readAll(t testing.TB, r *repo.Repo, chunks ...[]byte) error {
	t.Helper()
	for i, c := range chunks {
		got, err := r.Chunk(context.Background(), r.NewHasher().ID(c))
		switch {
		case err == nil && !bytes.Equal(got, c):
			t.Fatalf("chunk %d: wrong bytes", i)
		case err != nil && !errors.Is(err, repo.ErrDamaged):
			t.Fatalf("chunk %d: not called damage: %v", i, err)
		case err != nil:
			return err
		}
	}
	return nil
}

// checkSuffering holds Check to what restoring does, and returns the number of
// snapshots that suffer.
func checkSuffering(t testing.TB, be backend.Backend) int {
	t.Helper()
	ctx := context.Background()
	r := repotest.MustOpen(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	failed := map[repo.FileID]bool{}
	for _, s := range list {
		if _, err := repotest.Restore(ctx, r, s); err != nil {
			failed[s.ID] = true
		}
	}
	report, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Suffering {
		if !failed[s.Snapshot] {
			t.Errorf("snapshot %s suffers by report and can be restored", s.Snapshot.Short())
		}
	}
	if len(report.Suffering) != len(failed) || report.Clean() && len(failed) > 0 {
		t.Errorf("%d snapshots fail, the report says %+v", len(failed), report)
	}
	for _, p := range report.Problems {
		if p.File == "" {
			t.Errorf("a problem without a file: %+v", p)
		}
	}
	return len(failed)
}

// deltaChain makes n versions of a chunk that differ a little.
func deltaChain(n int) [][]byte {
	var out [][]byte
	for i := range n {
		v := repotest.Noise(5, 8<<10)
		copy(v[i*100:], fmt.Appendf(nil, "version %d", i))
		out = append(out, v)
	}
	return out
}

// cacheSizes are for what must not depend on what the cache holds.
var cacheSizes = map[string]int{"no cache": 1, "small cache": 20 << 10, "large cache": 1 << 20}

func withCache(t testing.TB, be backend.Backend, size int) *repo.Repo {
	t.Helper()
	opts := repotest.Options(3)
	opts.Cache = size
	r, err := repotest.Open(context.Background(), be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDeltaChain(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	versions := deltaChain(pack.MaxDepth + 2)
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
		if err := readAll(t, r, versions[:last]...); err != nil {
			t.Errorf("%s: depth %d: %v", name, pack.MaxDepth, err)
		}
		if err := readAll(t, r, versions[last]); err == nil {
			t.Errorf("%s: a chain of %d was read", name, last)
		}
		// From the far end, with nothing in the cache.
		if err := readAll(t, withCache(t, be, size), versions[last-1]); err != nil {
			t.Errorf("%s: depth %d at once: %v", name, pack.MaxDepth, err)
		}
	}
	commitChunks(t, be, 1, versions[:last]...)
	commitChunks(t, be, 2, versions[0], versions[last])
	if n := checkSuffering(t, be); n != 1 {
		t.Errorf("%d snapshots suffer, want the one with the chain that is too long", n)
	}
	storeAnew(t, be, versions[last])
}

// storeAnew backs up content again that a pack holds and nobody can read: that
// makes it readable, and the snapshots whole that suffered from it.
func storeAnew(t testing.TB, be backend.Backend, content []byte) {
	t.Helper()
	if _, err := repotest.Store(context.Background(), repotest.MustOpen(t, be), repotest.Files{"again": content}, 3); err != nil {
		t.Fatal(err)
	}
	if err := readAll(t, repotest.MustOpen(t, be), content); err != nil {
		t.Errorf("a backup relied on what cannot be read: %v", err)
	}
	if n := checkSuffering(t, be); n != 0 {
		t.Errorf("%d snapshots suffer from what was stored anew", n)
	}
}

func TestDeltaCycles(t *testing.T) {
	t.Parallel()
	v := deltaChain(4)
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
						if err := readAll(t, r, v[0]); err == nil {
							t.Errorf("%s: reader %d read a cycle", cache, i)
						}
						if err := readAll(t, r, v[3]); err != nil {
							t.Errorf("%s: reader %d: beside the cycle: %v", cache, i, err)
						}
					})
				}
				g.Wait()
			}
			commitChunks(t, be, 1, v[0], v[3])
			commitChunks(t, be, 2, v[3])
			if n := checkSuffering(t, be); n != 1 {
				t.Errorf("%d snapshots suffer", n)
			}
			storeAnew(t, be, v[0])
		})
	}
}

func TestDeltaWithoutDictionary(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	v := deltaChain(3)
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]), repotest.Delta(r, v[2], v[1]), repotest.Raw([]byte("beside")))
	r = repotest.MustOpen(t, be)
	for i := 1; i <= 2; i++ {
		if err := readAll(t, r, v[i]); err == nil {
			t.Errorf("version %d was read without its dictionary", i)
		}
	}
	commitChunks(t, be, 1, v[2])
	commitChunks(t, be, 2, []byte("beside"))
	if n := checkSuffering(t, be); n != 1 {
		t.Errorf("%d snapshots suffer", n)
	}
	// Structure alone shows it, too.
	report, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{})
	if err != nil || len(report.Suffering) != 1 {
		t.Errorf("without reading packs: %+v, %v", report, err)
	}
}

// A dictionary may be as long as the limit, its first and last bytes in use.
func TestDeltaDictionarySizes(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	var parts [][]byte
	for i := range 9 {
		parts = append(parts, repotest.Noise(uint64(60+i), 1<<20))
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(parts[i]))
	}
	// No match reaches further back than the window of 8 MiB.
	fits := append(bytes.Clone(parts[0][64<<10:][:15<<10]), parts[7][1<<20-15<<10:]...)
	tooMuch := append(bytes.Clone(fits), '!')
	name := repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, fits, parts[:8]...))
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, tooMuch, parts...))
	if size := len(repotest.Content(t, be)[name]); size > 2<<10 {
		t.Errorf("30 KiB near both ends of a dictionary took %d bytes", size)
	}
	r = repotest.MustOpen(t, be)
	if err := readAll(t, r, fits); err != nil {
		t.Errorf("a dictionary of %d bytes: %v", pack.MaxDictSize, err)
	}
	if err := readAll(t, r, tooMuch); err == nil {
		t.Error("a dictionary over the limit was taken")
	}
	commitChunks(t, be, 1, fits)
	commitChunks(t, be, 2, tooMuch)
	if n := checkSuffering(t, be); n != 1 {
		t.Errorf("%d snapshots suffer", n)
	}
}

// Who relies on a damaged base suffers with it, and nobody else.
func TestDamagedBase(t *testing.T) {
	t.Parallel()
	v := deltaChain(4)
	for _, where := range []int{12, 40, -40} { // in the block, in the header
		be := memory.New()
		r := repotest.Create(t, be)
		base := repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[0]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[2], v[1]))
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[3]))
		commitChunks(t, be, 1, v[0])
		commitChunks(t, be, 2, v[1], v[3])
		commitChunks(t, be, 3, v[2])
		commitChunks(t, be, 4, v[3])
		if n := checkSuffering(t, be); n != 0 {
			t.Fatalf("%d suffer before the damage", n)
		}
		file := repotest.Content(t, be)[base]
		want := 3
		if where < 0 {
			where, want = len(file)+where, -1
		}
		file[where] ^= 4
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
			// The index knows what the header said: nothing is lost.
			if len(report.Suffering) != 0 {
				t.Errorf("damaged header: %+v", report.Suffering)
			}
			continue
		}
		if n := checkSuffering(t, be); n != want {
			t.Errorf("%d snapshots suffer, want %d", n, want)
		}
		if err := be.Delete(context.Background(), base); err != nil {
			t.Fatal(err)
		}
		if n := checkSuffering(t, be); n != want {
			t.Errorf("base deleted: %d snapshots suffer, want %d", n, want)
		}
	}
}

// A chunk that lies in a second pack in full is not lost with the delta.
func TestSecondCopyOfADelta(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	v := deltaChain(2)
	repotest.PutPack(t, r, be, pack.Content, repotest.Delta(r, v[1], v[0]))
	repotest.PutPack(t, r, be, pack.Content, repotest.Raw(v[1]))
	commitChunks(t, be, 1, v[1])
	checkSuffering(t, be) // whichever copy counts, report and restore agree
}
