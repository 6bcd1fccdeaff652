package index

import (
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// oneBlock returns the header of a pack of one block with these chunks. The block is a
// delta if dict is not empty.
func oneBlock(dict []chunk.ID, ids ...chunk.ID) pack.Header {
	b := pack.Block{Offset: 8, Stored: 100, Encoding: pack.Zstd, Dict: dict}
	if len(dict) > 0 {
		b.Encoding = pack.Delta
	}
	for _, id := range ids {
		b.Chunks = append(b.Chunks, pack.Chunk{ID: id, Length: 10})
	}
	return pack.Header{Blocks: []pack.Block{b}}
}

// A chunk is not reusable if only a retired pack holds it, or if it needs a retired
// pack. Lookup prefers copies in other packs. A chunk that is stored again is reusable.
func TestRetire(t *testing.T) {
	t.Parallel()
	x := New()
	retired, kept, repacked := packID(1), packID(2), packID(3)
	x.Add(retired, 200, oneBlock(nil, id(1), id(2)))
	x.Add(kept, 200, oneBlock([]chunk.ID{id(2)}, id(3)))
	x.Add(repacked, 200, oneBlock(nil, id(1)))
	x.Retire(retired)
	x.Retire(packID(9)) // not known
	x.Compact()
	for n, want := range map[uint32]struct{ reusable, has bool }{
		1: {true, true},
		2: {false, true},
		3: {false, true}, // its dictionary is in a retired pack
		4: {false, false},
	} {
		if x.Reusable(id(n)) != want.reusable || x.Has(id(n)) != want.has {
			t.Errorf("chunk %d: Reusable %v, Has %v", n, x.Reusable(id(n)), x.Has(id(n)))
		}
	}
	if loc, _ := x.Lookup(id(1)); loc.Pack != repacked {
		t.Error("Lookup returned the copy in the retired pack")
	}
	x.Add(packID(4), 200, oneBlock(nil, id(2)))
	if !x.Reusable(id(2)) {
		t.Error("a chunk that was stored again is not reusable")
	}
	if loc, _ := x.Lookup(id(2)); loc.Pack != packID(4) {
		t.Error("Lookup returned the old copy")
	}
}
