package index

import (
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// Agrees notices a difference in each field, and none if bases were unknown at first.
func TestAgrees(t *testing.T) {
	t.Parallel()
	header := func() *pack.Header {
		return &pack.Header{Kind: pack.Content, Blocks: []pack.Block{
			{Offset: 8, Stored: 100, Encoding: pack.Delta, Dict: []chunk.ID{id(1), id(2)}, Chunks: []pack.Chunk{{ID: id(3), Length: 30}, {ID: id(4), Length: 40}}},
			{Offset: 108, Stored: 50, Encoding: pack.Zstd, Chunks: []pack.Chunk{{ID: id(1), Length: 10}}},
		}}
	}
	x := New()
	if !x.Agrees(packID(1), 200, header()) {
		t.Error("an unknown pack differs")
	}
	x.Add(packID(1), 200, *header())
	x.Add(packID(2), 90, pack.Header{Blocks: []pack.Block{{Offset: 8, Stored: 20, Chunks: []pack.Chunk{{ID: id(2), Length: 20}}}}})
	for range 2 {
		if !x.Agrees(packID(1), 200, header()) {
			t.Error("a pack differs from itself")
		}
		if x.Agrees(packID(1), 201, header()) {
			t.Error("another size agrees")
		}
		for i, change := range []func(h *pack.Header){
			func(h *pack.Header) { h.Kind = pack.Metadata },
			func(h *pack.Header) { h.Blocks = h.Blocks[:1] },
			func(h *pack.Header) { h.Blocks[0].Offset++ },
			func(h *pack.Header) { h.Blocks[1].Stored++ },
			func(h *pack.Header) { h.Blocks[0].Encoding = pack.Zstd },
			func(h *pack.Header) { h.Blocks[0].Dict = nil },
			func(h *pack.Header) { h.Blocks[0].Dict[1] = id(1) },
			func(h *pack.Header) { h.Blocks[1].Dict = []chunk.ID{id(2)} },
			func(h *pack.Header) { h.Blocks[0].Chunks[1].ID = id(5) },
			func(h *pack.Header) { h.Blocks[1].Chunks[0].Length++ },
			func(h *pack.Header) { h.Blocks[0].Chunks = h.Blocks[0].Chunks[:1] },
		} {
			h := header()
			change(h)
			if x.Agrees(packID(1), 200, h) {
				t.Errorf("change %d is not noticed", i)
			}
		}
		x.Compact()
	}
}
