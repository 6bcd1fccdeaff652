package index_test

import (
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

func Example() {
	h := chunk.NewHasher([32]byte{1})
	hello, world := h.ID([]byte("hello ")), h.ID([]byte("world"))
	x := index.New()
	x.Add(pack.ID{2}, 500, pack.Header{Blocks: []pack.Block{{
		Offset: 8, Stored: 51, Encoding: pack.Raw,
		Chunks: []pack.Chunk{{ID: hello, Length: 6}, {ID: world, Length: 5}},
	}}})
	x.Compact()

	loc, ok := x.Lookup(world)
	id, block := x.Block(loc.Block)
	fmt.Println(ok, id == pack.ID{2})
	fmt.Printf("bytes %d to %d of the block at offset %d\n", loc.Start, loc.Start+loc.Size, block.Offset)
	// Output:
	// true true
	// bytes 6 to 11 of the block at offset 8
}
