package index

import (
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// one is a pack of one block with these chunks, encoded against dict.
func one(dict []chunk.ID, ids ...chunk.ID) pack.Header {
	b := pack.Block{Offset: 8, Stored: 100, Encoding: pack.Zstd, Dict: dict}
	if len(dict) > 0 {
		b.Encoding = pack.Delta
	}
	for _, id := range ids {
		b.Chunks = append(b.Chunks, pack.Chunk{ID: id, Length: 10})
	}
	return pack.Header{Blocks: []pack.Block{b}}
}

// Nothing new may rely on what only a doomed pack holds, or on what needs such
// a chunk; a copy elsewhere is preferred, and what is stored anew counts.
func TestDoom(t *testing.T) {
	x := New()
	going, staying, repacked := packID(1), packID(2), packID(3)
	x.Add(going, 200, one(nil, id(1), id(2)))
	x.Add(staying, 200, one([]chunk.ID{id(2)}, id(3)))
	x.Add(repacked, 200, one(nil, id(1)))
	x.Retire(going)
	x.Retire(packID(9)) // not there
	x.Compact()
	for n, want := range map[uint32]struct{ firm, has bool }{
		1: {true, true},
		2: {false, true},
		3: {false, true}, // its dictionary is about to go
		4: {false, false},
	} {
		if x.Reusable(id(n)) != want.firm || x.Has(id(n)) != want.has {
			t.Errorf("chunk %d: firm %v, there %v", n, x.Reusable(id(n)), x.Has(id(n)))
		}
	}
	if loc, _ := x.Lookup(id(1)); loc.Pack != repacked {
		t.Error("the copy in the doomed pack is used")
	}
	x.Add(packID(4), 200, one(nil, id(2)))
	if !x.Reusable(id(2)) {
		t.Error("a chunk that was stored anew does not count")
	}
	if loc, _ := x.Lookup(id(2)); loc.Pack != packID(4) {
		t.Error("the old copy is used")
	}
}
