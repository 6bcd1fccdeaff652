package pack_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
)

// Example writes a pack of one block and reads it back.
func Example() {
	master, err := crypto.NewKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	headers := crypto.NewSealer(master.Derive(crypto.ForPacks), rand.Reader)
	codec := pack.NewCodec(crypto.NewSealer(master.Derive(crypto.ForBlocks), rand.Reader))
	hasher := chunk.NewHasher(master.Derive(crypto.ForChunkIDs))

	content := []byte("hello, world")
	sealed, encoding, err := codec.Encode(nil, content)
	if err != nil {
		log.Fatal(err)
	}
	b := pack.NewBuilder(pack.Content, nil)
	b.Add(sealed, pack.Block{
		Encoding: encoding,
		Chunks:   []pack.Chunk{{ID: hasher.ID(content), Length: uint32(len(content))}},
	})
	file, _, err := b.Finish(headers)
	if err != nil {
		log.Fatal(err)
	}

	h, err := pack.ReadHeader(bytes.NewReader(file), int64(len(file)), headers)
	if err != nil {
		log.Fatal(err)
	}
	block := &h.Blocks[0]
	plain, err := codec.Decode(nil, file[block.Offset:block.Offset+block.Stored], block, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s pack, %d block, %s: %s\n", h.Kind, len(h.Blocks), block.Encoding, plain)
	// Output: content pack, 1 block, raw: hello, world
}
