package index

import "github.com/snap-backup/snap/chunk"

// unknownDepth is the depth of a block that cannot be decoded, as far as known.
const unknownDepth = 1 << 15

// settle decides between copies, and finds chunks that cannot be decoded.
//
// Lookup gives, of several copies of a chunk, the one that the fewest blocks
// have to be decoded for. Two programs that store at the same time store chunks
// twice, and each may encode its copies against what the other one encodes
// against its own: first copies could then need each other in a circle. The
// copy of least depth is at most as deep as what its writer knew, and needs
// only chunks of less depth, so these copies can never lead round in a circle.
//
// A chunk whose dictionary, or what that needs, is in no pack is lost: it counts
// as unknown until it is stored again.
func (x *Index) settle() {
	x.lost = nil
	if len(x.twice) == 0 && len(x.extra) == 0 {
		return
	}
	copies := map[chunk.ID][]uint32{}
	for _, n := range x.twice {
		id := x.chunks.at(int(n)).id
		if copies[id] == nil {
			first, _ := x.find(id)
			copies[id] = []uint32{first}
		}
		copies[id] = append(copies[id], n)
	}
	depths := x.blockDepths(copies)
	x.twice = x.twice[:0]
	for id, list := range copies {
		best := list[0]
		for _, n := range list[1:] {
			if depths[x.blockOf(n)] < depths[x.blockOf(best)] {
				best = n
			}
		}
		x.replace(id, best)
		for _, n := range list {
			if n != best {
				x.twice = append(x.twice, n)
			}
		}
	}
	for ref, depth := range depths {
		if depth < unknownDepth {
			continue
		}
		for i := x.blocks.at(ref).first; i < x.end(BlockRef(ref)); i++ {
			id := x.chunks.at(int(i)).id
			if n, _ := x.find(id); depths[x.blockOf(n)] == unknownDepth {
				if x.lost == nil {
					x.lost = map[chunk.ID]struct{}{}
				}
				x.lost[id] = struct{}{}
			}
		}
	}
}

// known returns the number of the copy to use of a chunk that can be decoded.
func (x *Index) known(id chunk.ID) (uint32, bool) {
	n, ok := x.find(id)
	if ok && x.lost != nil {
		if _, lost := x.lost[id]; lost {
			return 0, false
		}
	}
	return n, ok
}

// blockDepths returns the least depth of each block, whichever copies of the
// chunks in its dictionary are used. It begins with blocks that need none and
// goes on until nothing gets shallower.
func (x *Index) blockDepths(copies map[chunk.ID][]uint32) []uint16 {
	depths := make([]uint16, x.blocks.len())
	var deltas []BlockRef
	for i := range depths {
		if x.blocks.at(i).dict > 0 {
			depths[i] = unknownDepth
			deltas = append(deltas, BlockRef(i))
		}
	}
	least := func(id chunk.ID) uint16 {
		list, ok := copies[id]
		if !ok {
			n, known := x.find(id)
			if !known {
				return unknownDepth
			}
			return depths[x.blockOf(n)]
		}
		d := uint16(unknownDepth)
		for _, n := range list {
			d = min(d, depths[x.blockOf(n)])
		}
		return d
	}
	for changed := true; changed; {
		changed = false
		for _, ref := range deltas {
			d := uint16(0)
			for _, id := range x.dict(x.blocks.at(int(ref))) {
				d = max(d, least(id))
			}
			if d < unknownDepth && d+1 < depths[ref] {
				depths[ref] = d + 1
				changed = true
			}
		}
	}
	return depths
}

// replace makes the table name another copy of a chunk.
func (x *Index) replace(id chunk.ID, n uint32) {
	for s := slot(id, len(x.slots)); x.slots[s] != 0; {
		if x.chunks.at(int(x.slots[s]-1)).id == id {
			x.slots[s] = n + 1
			return
		}
		if s++; s == len(x.slots) {
			s = 0
		}
	}
}
