package repo

import (
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// maxNear bounds the near dictionary of a block, in bytes: as much as a block has
// plaintext, and some more.
const maxNear = 1<<20 + 256<<10

// base is a chunk that may serve in a dictionary.
type base struct {
	id   chunk.ID
	size uint32
}

// bases is a dictionary that is being put together: each chunk once.
type bases struct {
	list []base
	in   map[chunk.ID]struct{}
	size int
}

// fit reports whether more chunks keep the dictionary small.
func (b *bases) fit(more []base) bool {
	size, n := b.size, len(b.list)
	for _, m := range more {
		if _, ok := b.in[m.id]; !ok {
			size += int(m.size)
			n++
		}
	}
	return size <= maxNear && n <= pack.MaxDictChunks
}

// add takes chunks in as far as the format's limits allow.
func (b *bases) add(more []base) {
	if b.in == nil {
		b.in = map[chunk.ID]struct{}{}
	}
	for _, m := range more {
		if _, ok := b.in[m.id]; ok || len(b.list) == pack.MaxDictChunks || b.size+int(m.size) > pack.MaxDictSize {
			continue
		}
		b.in[m.id] = struct{}{}
		b.list = append(b.list, m)
		b.size += int(m.size)
	}
}

func (b *bases) ids() []chunk.ID {
	ids := make([]chunk.ID, len(b.list))
	for i := range b.list {
		ids[i] = b.list[i].id
	}
	return ids
}
