package chain

import (
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// maxNear bounds the near dictionary of a block, in bytes: somewhat above the
// plaintext of a block.
const maxNear = 1<<20 + 256<<10

// Base is a chunk that may serve in a dictionary.
type Base struct {
	ID   chunk.ID
	Size uint32
}

// Bases collects the chunks of a dictionary, each once.
type Bases struct {
	List []Base
	in   map[chunk.ID]struct{}
	size int
}

// Fits reports whether the dictionary stays within the limits for near dictionaries
// if chunks are added.
func (b *Bases) Fits(more []Base) bool {
	size, n := b.size, len(b.List)
	for _, m := range more {
		if _, ok := b.in[m.ID]; !ok {
			size += int(m.Size)
			n++
		}
	}
	return size <= maxNear && n <= pack.MaxDictChunks
}

// Add adds chunks as far as the format's limits allow.
func (b *Bases) Add(more []Base) {
	if b.in == nil {
		b.in = map[chunk.ID]struct{}{}
	}
	for _, m := range more {
		if _, ok := b.in[m.ID]; ok || len(b.List) == pack.MaxDictChunks || b.size+int(m.Size) > pack.MaxDictSize {
			continue
		}
		b.in[m.ID] = struct{}{}
		b.List = append(b.List, m)
		b.size += int(m.Size)
	}
}

// IDs returns the IDs of the chunks, in order.
func (b *Bases) IDs() []chunk.ID {
	ids := make([]chunk.ID, len(b.List))
	for i := range b.List {
		ids[i] = b.List[i].ID
	}
	return ids
}
