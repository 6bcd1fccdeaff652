package index

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"lukechampine.com/blake3"
	"pgregory.net/rapid"
)

func id(n uint32) chunk.ID {
	return blake3.Sum256(binary.LittleEndian.AppendUint32(nil, n))
}

func packID(n uint32) pack.ID { return pack.ID(id(n ^ 0xffffffff)) }

// genHeader draws a header as pack.Builder would make it.
func genHeader(t *rapid.T) pack.Header {
	h := pack.Header{Kind: pack.Kind(rapid.IntRange(0, 1).Draw(t, "kind")), Blocks: []pack.Block{}}
	offset := uint32(8)
	for range rapid.IntRange(0, 6).Draw(t, "blocks") {
		b := pack.Block{Offset: offset, Encoding: pack.Zstd, Stored: rapid.Uint32Range(50, 500).Draw(t, "stored")}
		if rapid.Bool().Draw(t, "delta") {
			b.Encoding = pack.Delta
			for range rapid.IntRange(1, 4).Draw(t, "dict") {
				b.Dict = append(b.Dict, id(rapid.Uint32Range(0, 40).Draw(t, "dict id")))
			}
		}
		for range rapid.IntRange(1, 8).Draw(t, "chunks") {
			b.Chunks = append(b.Chunks, pack.Chunk{ID: id(rapid.Uint32Range(0, 40).Draw(t, "id")), Length: rapid.Uint32Range(1, 999).Draw(t, "length")})
		}
		offset += b.Stored
		h.Blocks = append(h.Blocks, b)
	}
	return h
}

// TestModel compares the index with plain maps.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := New()
		type place struct {
			pack        pack.ID
			block       pack.Block
			start, size uint32
		}
		model := map[chunk.ID][]place{}
		headers := map[pack.ID]pack.Header{}
		for i := range rapid.IntRange(0, 6).Draw(t, "packs") {
			h, name := genHeader(t), packID(uint32(i))
			headers[name] = h
			x.Add(name, int64(i), h)
			x.Add(name, int64(i), h) // a known pack changes nothing
			for _, b := range h.Blocks {
				start := uint32(0)
				for _, c := range b.Chunks {
					model[c.ID] = append(model[c.ID], place{name, b, start, c.Length})
					start += c.Length
				}
			}
			if rapid.Bool().Draw(t, "compact") {
				x.Compact()
			}
		}
		x.Compact()
		// A chunk is known if a copy of it can be decoded and is no deeper than a
		// reader follows.
		decodable := map[chunk.ID]bool{}
		for range pack.MaxDepth + 1 {
			before := maps.Clone(decodable)
			for id, places := range model {
				if slices.ContainsFunc(places, func(p place) bool {
					return !slices.ContainsFunc(p.block.Dict, func(d chunk.ID) bool { return !before[d] })
				}) {
					decodable[id] = true
				}
			}
		}
		for n := range uint32(45) {
			want, known := model[id(n)], decodable[id(n)]
			got, ok := x.Lookup(id(n))
			if ok != known || x.Has(id(n)) != known || x.Reusable(id(n)) != known {
				t.Fatalf("chunk %d: Lookup %v, Reusable %v, want %v", n, ok, x.Reusable(id(n)), known)
			}
			if !known {
				continue
			}
			// Compact may choose any copy.
			name, blk := x.Block(got.Block)
			if !slices.ContainsFunc(want, func(p place) bool {
				return got.Pack == p.pack && name == p.pack && got.Start == p.start && got.Size == p.size && reflect.DeepEqual(blk, p.block)
			}) {
				t.Fatalf("chunk %d: got %+v in %+v, want one of %+v", n, got, blk, want)
			}
			if copies := x.Copies(id(n)); len(copies) != len(want) || copies[0] != got {
				t.Fatalf("chunk %d: %d copies, want %d", n, len(copies), len(want))
			}
		}
		packs := x.Packs()
		if len(packs) != len(headers) {
			t.Fatalf("%d packs, want %d", len(packs), len(headers))
		}
		for _, p := range packs {
			h := headers[p.ID]
			if p.Kind != h.Kind || len(p.Blocks) != len(h.Blocks) {
				t.Fatalf("pack %s: %+v, want %+v", p.ID, p, h)
			}
			for i, ref := range p.Blocks {
				if _, b := x.Block(ref); !reflect.DeepEqual(b, h.Blocks[i]) {
					t.Fatalf("pack %s block %d: %+v, want %+v", p.ID, i, b, h.Blocks[i])
				}
			}
		}
	})
}

func TestFileRoundTrip(t *testing.T) {
	t.Parallel()
	sealer := crypto.NewSealer(crypto.Key{1}, rand.Reader)
	rapid.Check(t, func(t *rapid.T) {
		var f File
		var want []listedPack
		for i := range rapid.IntRange(0, 5).Draw(t, "packs") {
			p := listedPack{packID(uint32(i)), rapid.Int64Range(0, pack.MaxSize).Draw(t, "size"), genHeader(t)}
			want = append(want, p)
			f.Add(p.id, p.size, &p.h)
		}
		b, err := f.Seal(sealer)
		if err != nil {
			t.Fatal(err)
		}
		var got []listedPack
		err = OpenFile(b, sealer, func(id pack.ID, size int64, h pack.Header) { got = append(got, listedPack{id, size, h}) })
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
		for range 10 {
			i := rapid.IntRange(0, len(b)-1).Draw(t, "flip")
			b[i] ^= 4
			if err := OpenFile(b, sealer, nil); !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d changed: got %v", i, err)
			}
			b[i] ^= 4
		}
	})
}

// TestMemory checks that the index takes at most 64 bytes a chunk at every size if
// each chunk has its own block.
func TestMemory(t *testing.T) {
	packs := uint32(300)
	if testing.Short() {
		packs = 80
	}
	x := New()
	next := uint32(0)
	for p := range packs {
		h := pack.Header{}
		for range 1000 {
			h.Blocks = append(h.Blocks, pack.Block{Encoding: pack.Zstd, Stored: 1 << 16, Chunks: []pack.Chunk{{ID: id(next), Length: 1 << 16}}})
			next++
		}
		x.Add(packID(p), 1<<24, h)
		if p > 50 {
			if per := float64(x.Memory()) / float64(x.Len()); per > 64 {
				t.Fatalf("%d chunks: %.1f bytes a chunk", x.Len(), per)
			}
		}
	}
	// Memory must report at least about as many bytes as the heap shrinks by.
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	reported, n := x.Memory(), x.Len()
	x = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	if real := int(before.HeapAlloc) - int(after.HeapAlloc); real > reported+reported/20 {
		t.Errorf("Memory() = %d, the heap shrank by %d, for %d chunks", reported, real, n)
	}
	runtime.KeepAlive(x)
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	x := New()
	var wg sync.WaitGroup
	for g := range uint32(4) {
		wg.Go(func() {
			for i := range uint32(50) {
				n := g*1000 + i
				x.Add(packID(n), 1, pack.Header{Blocks: []pack.Block{{Stored: 50, Encoding: pack.Zstd, Chunks: []pack.Chunk{{ID: id(n), Length: 5}}}}})
				if loc, ok := x.Lookup(id(n)); !ok || loc.Pack != packID(n) {
					t.Errorf("Lookup of chunk %d does not return its pack", n)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkLookup(b *testing.B) {
	x := New()
	h := pack.Header{}
	for n := range uint32(200_000) {
		if n%16 == 0 {
			h.Blocks = append(h.Blocks, pack.Block{Encoding: pack.Zstd, Stored: 1 << 16})
		}
		blk := &h.Blocks[len(h.Blocks)-1]
		blk.Chunks = append(blk.Chunks, pack.Chunk{ID: id(n), Length: 1 << 16})
	}
	x.Add(packID(1), 1, h)
	n := uint32(0)
	for b.Loop() {
		x.Lookup(id(n % 200_000))
		n += 7919
	}
}

// BenchmarkAdd loads index files of 240,000 chunks: all without a dictionary, or five
// of six in deltas at depths up to 5. Some files need chunks of another file. Half of
// them are loaded before that file.
func BenchmarkAdd(b *testing.B) {
	const files, packs, blocks, chunks = 8, 15, 250, 8
	sealer := crypto.NewSealer(crypto.Key{1}, rand.Reader)
	load := func(b *testing.B, deltas bool) {
		sealed := make([][]byte, files)
		n := uint32(0)
		for i := range sealed {
			var f File
			for p := range packs {
				h := pack.Header{}
				for range blocks {
					blk := pack.Block{Encoding: pack.Zstd, Stored: 1 << 16}
					for range chunks {
						blk.Chunks = append(blk.Chunks, pack.Chunk{ID: id(n), Length: 1 << 16})
						if deltas && (i%2 == 1 || p >= packs/3) {
							blk.Encoding = pack.Delta
							blk.Dict = append(blk.Dict, id(n-packs/3*blocks*chunks))
						}
						n++
					}
					h.Blocks = append(h.Blocks, blk)
				}
				f.Add(packID(uint32(i*packs+p)), 1<<24, &h)
			}
			var err error
			if sealed[i], err = f.Seal(sealer); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			x := New()
			for i := range sealed {
				if err := OpenFile(sealed[i*5%files], sealer, x.Add); err != nil {
					b.Fatal(err)
				}
			}
			x.Compact()
		}
	}
	b.Run("full", func(b *testing.B) { load(b, false) })
	b.Run("deltas", func(b *testing.B) { load(b, true) })
}

// TestCopiesThatNeedEachOther checks that Compact chooses copies that can be
// decoded, in whatever order the packs of two writers are added.
func TestCopiesThatNeedEachOther(t *testing.T) {
	t.Parallel()
	full := func(n uint32) pack.Header {
		return pack.Header{Blocks: []pack.Block{{Stored: 50, Encoding: pack.Zstd, Chunks: []pack.Chunk{{ID: id(n), Length: 5}}}}}
	}
	delta := func(n, base uint32) pack.Header {
		return pack.Header{Blocks: []pack.Block{{Stored: 50, Encoding: pack.Delta, Dict: []chunk.ID{id(base)}, Chunks: []pack.Chunk{{ID: id(n), Length: 5}}}}}
	}
	// One writer stores chunks 1, 2, 3, the other 3, 2, 1. Each chunk after the first
	// is a delta of the chunk before.
	headers := []pack.Header{full(1), delta(2, 1), delta(3, 2), full(3), delta(2, 3), delta(1, 2)}
	rapid.Check(t, func(t *rapid.T) {
		x := New()
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4, 5}).Draw(t, "order") {
			x.Add(packID(uint32(i)), 1, headers[i])
		}
		x.Compact()
		for n := uint32(1); n <= 3; n++ {
			steps := 0
			for at := id(n); ; steps++ {
				loc, ok := x.Lookup(at)
				if !ok || steps > 2 {
					t.Fatalf("chunk %d cannot be decoded", n)
				}
				_, dict := x.Dependencies(loc.Block)
				if len(dict) == 0 {
					break
				}
				at = dict[0]
			}
		}
	})
}
