package index

import (
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

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
// A chunk whose dictionary, or what that needs, is in no pack is lost, and so is
// one that can only be had with its own help, or through more dictionaries than
// a reader follows: it counts as unknown until it is stored again. One that can
// be had only with the help of a pack that is about to go can be read, and is
// stored again as well.
func (x *Index) settle() {
	x.weak = nil
	if len(x.twice) == 0 && len(x.dicts) == 0 && len(x.doomed) == 0 {
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
	depths := x.blockDepths(copies, nil)
	firm := depths
	if len(x.doomed) > 0 {
		firm = x.blockDepths(copies, x.doomed)
	}
	rank := func(n uint32) int { // less is better
		ref := x.blockOf(n)
		return int(firm[ref])<<16 | int(depths[ref])
	}
	x.twice = x.twice[:0]
	for id, list := range copies {
		best := list[0]
		for _, n := range list[1:] {
			if rank(n) < rank(best) {
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
	for ref := range firm {
		if firm[ref] < unknownDepth {
			continue
		}
		for i := x.blocks.at(ref).first; i < x.end(BlockRef(ref)); i++ {
			id := x.chunks.at(int(i)).id
			n, _ := x.find(id)
			if firm[x.blockOf(n)] < unknownDepth {
				continue
			}
			if x.weak == nil {
				x.weak = map[chunk.ID]weakness{}
			}
			x.weak[id] = doomed
			if depths[x.blockOf(n)] == unknownDepth {
				x.weak[id] = lost
			}
		}
	}
}

// weakness says why nothing may rely on a chunk.
type weakness uint8

const (
	lost   weakness = 1 + iota // it cannot be decoded
	doomed                     // it can, as long as a pack is there that is about to go
)

// known returns the number of the copy to use of a chunk that can be decoded.
func (x *Index) known(id chunk.ID) (uint32, bool) {
	n, ok := x.find(id)
	return n, ok && x.weak[id] != lost
}

// blockDepths returns the least depth of each block, whichever copies of the
// chunks in its dictionary are used, but for blocks of the packs in without. It
// begins with blocks that need none and goes on, a depth at a time, as deep as a
// reader goes. What is left then is deeper, needs what is not there, or needs
// itself, straight or round a circle, and cannot be decoded.
func (x *Index) blockDepths(copies map[chunk.ID][]uint32, without map[uint32]bool) []uint16 {
	depths := make([]uint16, x.blocks.len())
	var left []BlockRef
	for i := range depths {
		b := x.blocks.at(i)
		switch {
		case without[b.packEnc&(1<<28-1)]:
			depths[i] = unknownDepth
		case b.dict > 0:
			depths[i] = unknownDepth
			left = append(left, BlockRef(i))
		}
	}
	// Neighbours mostly need neighbours: these are not searched for.
	var last BlockRef
	depth := func(n uint32) uint16 {
		if n >= x.end(last) && int(last)+1 < len(depths) {
			last++
		}
		if n < x.blocks.at(int(last)).first || n >= x.end(last) {
			last = x.blockOf(n)
		}
		return depths[last]
	}
	// known reports whether a chunk of a dictionary lies above a depth.
	known := func(ref uint32, above uint16) bool {
		if ref&extraRef != 0 {
			return false
		}
		if len(copies) > 0 {
			if list, ok := copies[x.chunks.at(int(ref)).id]; ok {
				return slices.ContainsFunc(list, func(n uint32) bool { return depth(n) < above })
			}
		}
		return depth(ref) < above
	}
	for d := uint16(1); d <= pack.MaxDepth && len(left) > 0; d++ {
		left = slices.DeleteFunc(left, func(ref BlockRef) bool {
			run := x.dicts[x.blocks.at(int(ref)).dict-1:]
			for _, n := range run[1 : 1+run[0]] {
				if !known(n, d) {
					return false
				}
			}
			depths[ref] = d
			return true
		})
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
