package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// handBlock is a block that a test makes by hand, of one encoding or another.
type handBlock struct {
	encoding pack.Encoding
	dict     []chunk.ID
	with     []byte // the dictionary's bytes
	chunks   [][]byte
}

// delta is a block of one chunk whose dictionary is other chunks.
func delta(r *Repo, plain []byte, dict ...[]byte) handBlock {
	b := handBlock{encoding: pack.Delta, chunks: [][]byte{plain}, with: bytes.Join(dict, nil)}
	for _, d := range dict {
		b.dict = append(b.dict, r.NewHasher().ID(d))
	}
	return b
}

func raw(plain []byte) handBlock { return handBlock{chunks: [][]byte{plain}} }

// seal encodes and seals the block.
func (b *handBlock) seal(r *Repo) ([]byte, pack.Block, error) {
	body := bytes.Join(b.chunks, nil)
	blk := pack.Block{Encoding: b.encoding, Dict: b.dict}
	for _, c := range b.chunks {
		blk.Chunks = append(blk.Chunks, pack.Chunk{ID: r.NewHasher().ID(c), Length: uint32(len(c))})
	}
	if b.encoding != pack.Raw {
		opts := []zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedBestCompression)}
		if b.encoding == pack.Delta {
			opts = append(opts, zstd.WithEncoderDictRaw(0, b.with))
		}
		enc, err := zstd.NewWriter(nil, opts...)
		if err != nil {
			return nil, blk, err
		}
		body = enc.EncodeAll(body, nil)
	}
	sealed, err := r.blocks.Seal(nil, body, nil)
	return sealed, blk, err
}

// putPack stores a pack made by hand and an index file that lists it, and
// returns the pack's name.
func putPack(t testing.TB, r *Repo, be backend.Backend, kind pack.Kind, blocks ...handBlock) string {
	t.Helper()
	builder := pack.NewBuilder(kind, 0)
	for _, b := range blocks {
		sealed, blk, err := b.seal(r)
		if err != nil {
			t.Fatal(err)
		}
		builder.Add(sealed, blk)
	}
	file, h, err := builder.Finish(r.packs)
	if err != nil {
		t.Fatal(err)
	}
	name := packName(pack.Name(file))
	if err := be.Put(context.Background(), name, file); err != nil {
		t.Fatal(err)
	}
	var f index.File
	f.Add(pack.Name(file), int64(len(file)), &h)
	b, err := f.Seal(r.indexes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.putNamed(context.Background(), indexDir, b); err != nil {
		t.Fatal(err)
	}
	return name
}

// commitChunks makes a snapshot of one file for each of some chunks.
func commitChunks(t testing.TB, be backend.Backend, day int, chunks ...[]byte) FileID {
	t.Helper()
	ctx := context.Background()
	r := open(t, be)
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
	s := &Snapshot{Root: root, Time: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
	if err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// readAll reads chunks and returns the first error, which must be ErrDamaged.
func readAll(t testing.TB, r *Repo, chunks ...[]byte) error {
	t.Helper()
	for i, c := range chunks {
		got, err := r.Chunk(context.Background(), r.NewHasher().ID(c))
		switch {
		case err == nil && !bytes.Equal(got, c):
			t.Fatalf("chunk %d: wrong bytes", i)
		case err != nil && !errors.Is(err, ErrDamaged):
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
	r := open(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	failed := map[FileID]bool{}
	for _, s := range list {
		if _, err := restore(ctx, r, s); err != nil {
			failed[s.ID] = true
		}
	}
	report, err := open(t, be).Check(ctx, CheckOptions{ReadData: 1})
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

// chain makes n versions of a chunk that differ a little.
func chain(n int) [][]byte {
	var out [][]byte
	for i := range n {
		v := noise(5, 8<<10)
		copy(v[i*100:], fmt.Appendf(nil, "version %d", i))
		out = append(out, v)
	}
	return out
}

// cacheSizes are for what must not depend on what the cache holds.
var cacheSizes = map[string]int{"no cache": 1, "small cache": 20 << 10, "large cache": 1 << 20}

func withCache(t testing.TB, be backend.Backend, size int) *Repo {
	t.Helper()
	opts := testOptions(3)
	opts.Cache = size
	r, err := openWith(context.Background(), be, testSecret, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDeltaChain(t *testing.T) {
	be := memory.New()
	r := create(t, be)
	versions := chain(pack.MaxDepth + 2)
	putPack(t, r, be, pack.Content, raw(versions[0]))
	for i, v := range versions[1:] {
		name := putPack(t, r, be, pack.Content, delta(r, v, versions[i]))
		if size := len(content(t, be)[name]); size > 600 {
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
	if _, err := store(context.Background(), open(t, be), files{"again": content}, 3); err != nil {
		t.Fatal(err)
	}
	if err := readAll(t, open(t, be), content); err != nil {
		t.Errorf("a backup relied on what cannot be read: %v", err)
	}
	if n := checkSuffering(t, be); n != 0 {
		t.Errorf("%d snapshots suffer from what was stored anew", n)
	}
}

func TestDeltaCycles(t *testing.T) {
	v := chain(4)
	for name, blocks := range map[string]func(r *Repo) []handBlock{
		"itself": func(r *Repo) []handBlock { return []handBlock{delta(r, v[0], v[0])} },
		"two":    func(r *Repo) []handBlock { return []handBlock{delta(r, v[0], v[1]), delta(r, v[1], v[0])} },
		"three": func(r *Repo) []handBlock {
			return []handBlock{delta(r, v[0], v[1]), delta(r, v[1], v[2]), delta(r, v[2], v[0], v[1])}
		},
	} {
		t.Run(name, func(t *testing.T) {
			be := memory.New()
			r := create(t, be)
			for _, b := range blocks(r) {
				putPack(t, r, be, pack.Content, b)
			}
			putPack(t, r, be, pack.Content, raw(v[3]))
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
	be := memory.New()
	r := create(t, be)
	v := chain(3)
	putPack(t, r, be, pack.Content, delta(r, v[1], v[0]), delta(r, v[2], v[1]), raw([]byte("beside")))
	r = open(t, be)
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
	report, err := open(t, be).Check(context.Background(), CheckOptions{})
	if err != nil || len(report.Suffering) != 1 {
		t.Errorf("without reading packs: %+v, %v", report, err)
	}
}

// A dictionary may be as long as the limit, its first and last bytes in use.
func TestDeltaDictionarySizes(t *testing.T) {
	be := memory.New()
	r := create(t, be)
	var parts [][]byte
	for i := range 9 {
		parts = append(parts, noise(uint64(60+i), 1<<20))
		putPack(t, r, be, pack.Content, raw(parts[i]))
	}
	// No match reaches further back than the window of 8 MiB.
	fits := append(bytes.Clone(parts[0][64<<10:][:15<<10]), parts[7][1<<20-15<<10:]...)
	tooMuch := append(bytes.Clone(fits), '!')
	name := putPack(t, r, be, pack.Content, delta(r, fits, parts[:8]...))
	putPack(t, r, be, pack.Content, delta(r, tooMuch, parts...))
	if size := len(content(t, be)[name]); size > 2<<10 {
		t.Errorf("30 KiB near both ends of a dictionary took %d bytes", size)
	}
	r = open(t, be)
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
	v := chain(4)
	for _, where := range []int{12, 40, -40} { // in the block, in the header
		be := memory.New()
		r := create(t, be)
		base := putPack(t, r, be, pack.Content, raw(v[0]))
		putPack(t, r, be, pack.Content, delta(r, v[1], v[0]))
		putPack(t, r, be, pack.Content, delta(r, v[2], v[1]))
		putPack(t, r, be, pack.Content, raw(v[3]))
		commitChunks(t, be, 1, v[0])
		commitChunks(t, be, 2, v[1], v[3])
		commitChunks(t, be, 3, v[2])
		commitChunks(t, be, 4, v[3])
		if n := checkSuffering(t, be); n != 0 {
			t.Fatalf("%d suffer before the damage", n)
		}
		file := content(t, be)[base]
		want := 3
		if where < 0 {
			where, want = len(file)+where, -1
		}
		file[where] ^= 4
		if err := be.Set(base, file); err != nil {
			t.Fatal(err)
		}
		report, err := open(t, be).Check(context.Background(), CheckOptions{ReadData: 1})
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
	be := memory.New()
	r := create(t, be)
	v := chain(2)
	putPack(t, r, be, pack.Content, delta(r, v[1], v[0]))
	putPack(t, r, be, pack.Content, raw(v[1]))
	commitChunks(t, be, 1, v[1])
	checkSuffering(t, be) // whichever copy counts, report and restore agree
}
