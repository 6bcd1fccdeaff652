package index

import (
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// unknownDepth is the depth of blocks that are not known to be decodable.
const unknownDepth = 1 << 15

// resolve chooses, for each chunk, the copy that Lookup returns. It also finds the
// chunks that cannot be decoded or reused.
//
// It prefers copies that can be decoded without retired packs. Among these it chooses
// the copy whose block has the least depth. Two programs that store at the same time
// can both store the same chunks, each as deltas of chunks that the other stored. The
// first copies of these chunks could then need each other in a cycle. A block needs
// only chunks of less depth than its own, so the chosen copies never form a cycle.
//
// A chunk is lost in three cases: it needs, directly or indirectly, a chunk that
// is in no pack; it needs itself; or its block is deeper than a reader follows. A
// lost chunk counts as unknown until it is stored again. A chunk that needs a retired
// pack can be read but not reused.
func (x *Index) resolve() {
	x.unusable = nil
	if len(x.duplicates) == 0 && len(x.dicts) == 0 && len(x.retired) == 0 {
		return
	}
	copies := x.copiesByID()
	depths := x.blockDepths(copies, nil)
	lasting := depths
	if len(x.retired) > 0 {
		lasting = x.blockDepths(copies, x.retired)
	}
	x.chooseCopies(copies, func(ref BlockRef) int { return int(lasting[ref])<<16 | int(depths[ref]) })
	x.findUnusable(depths, lasting)
}

// copiesByID returns the numbers of all copies of chunks that have several.
func (x *Index) copiesByID() map[chunk.ID][]uint32 {
	copies := map[chunk.ID][]uint32{}
	for _, n := range x.duplicates {
		id := *x.ids.at(int(n))
		if copies[id] == nil {
			first, _ := x.find(id)
			copies[id] = []uint32{first}
		}
		copies[id] = append(copies[id], n)
	}
	return copies
}

// chooseCopies makes the table name, for each chunk, the copy whose block has the
// lowest rank.
func (x *Index) chooseCopies(copies map[chunk.ID][]uint32, rank func(BlockRef) int) {
	x.duplicates = x.duplicates[:0]
	for id, list := range copies {
		best := list[0]
		for _, n := range list[1:] {
			if rank(x.blockOf(n)) < rank(x.blockOf(best)) {
				best = n
			}
		}
		x.replace(id, best)
		for _, n := range list {
			if n != best {
				x.duplicates = append(x.duplicates, n)
			}
		}
	}
}

// findUnusable fills unusable. lasting has the depths that blocks have if retired packs
// are not used.
func (x *Index) findUnusable(depths, lasting []uint16) {
	for ref := range lasting {
		if lasting[ref] < unknownDepth {
			continue
		}
		for i := x.blocks.at(ref).first; i < x.end(BlockRef(ref)); i++ {
			id := *x.ids.at(int(i))
			n, _ := x.find(id)
			chosen := x.blockOf(n)
			if lasting[chosen] < unknownDepth {
				continue
			}
			if x.unusable == nil {
				x.unusable = map[chunk.ID]reason{}
			}
			x.unusable[id] = needsRetired
			if depths[chosen] == unknownDepth {
				x.unusable[id] = lost
			}
		}
	}
}

// reason says why a chunk is unusable: new snapshots may not rely on it.
type reason uint8

const (
	lost         reason = 1 + iota // it cannot be decoded
	needsRetired                   // it can be decoded as long as a retired pack exists
)

// decodable returns the number of the chosen copy of a chunk, if it can be
// decoded.
func (x *Index) decodable(id chunk.ID) (uint32, bool) {
	n, ok := x.find(id)
	return n, ok && x.unusable[id] != lost
}

// blockDepths returns the least possible depth of each block, over all copies of the
// chunks in its dictionary. It ignores the blocks of the packs in without.
//
// It begins with blocks without a dictionary and continues one depth at a time,
// up to the depth that a reader follows. A block that then remains is deeper than
// that, needs a chunk that is in no pack, or needs itself. Such blocks cannot be
// decoded.
func (x *Index) blockDepths(copies map[chunk.ID][]uint32, without map[uint32]bool) []uint16 {
	f := depthFinder{x: x, copies: copies, depths: make([]uint16, x.blocks.len())}
	var rest []BlockRef
	for i := range f.depths {
		b := x.blocks.at(i)
		switch {
		case without[b.pack()]:
			f.depths[i] = unknownDepth
		case b.dict > 0:
			f.depths[i] = unknownDepth
			rest = append(rest, BlockRef(i))
		}
	}
	for d := uint16(1); d <= pack.MaxDepth && len(rest) > 0; d++ {
		rest = slices.DeleteFunc(rest, func(ref BlockRef) bool {
			if !f.dictBelow(ref, d) {
				return false
			}
			f.depths[ref] = d
			return true
		})
	}
	return f.depths
}

// depthFinder holds the state of one call of blockDepths.
type depthFinder struct {
	x      *Index
	copies map[chunk.ID][]uint32 // of chunks that have several
	depths []uint16              // of blocks
	last   BlockRef              // the block that was looked up last
}

// dictBelow reports whether each chunk of a block's dictionary has a copy in a block of
// a depth below limit.
func (f *depthFinder) dictBelow(ref BlockRef, limit uint16) bool {
	run := f.x.dicts[f.x.blocks.at(int(ref)).dict-1:]
	for _, n := range run[1 : 1+run[0]] {
		if !f.below(n, limit) {
			return false
		}
	}
	return true
}

// below reports whether any copy of a dictionary's chunk is in a block of a depth below
// limit. ref is the chunk's reference in the dictionary.
func (f *depthFinder) below(ref uint32, limit uint16) bool {
	if ref&extraRef != 0 {
		return false
	}
	if len(f.copies) > 0 {
		if list, ok := f.copies[*f.x.ids.at(int(ref))]; ok {
			return slices.ContainsFunc(list, func(n uint32) bool { return f.depth(n) < limit })
		}
	}
	return f.depth(ref) < limit
}

// depth returns the depth of the block that holds chunk number n. Blocks mostly
// need their neighbours, so it tries the last block and the next one before it
// searches.
func (f *depthFinder) depth(n uint32) uint16 {
	if n >= f.x.end(f.last) && int(f.last)+1 < len(f.depths) {
		f.last++
	}
	if n < f.x.blocks.at(int(f.last)).first || n >= f.x.end(f.last) {
		f.last = f.x.blockOf(n)
	}
	return f.depths[f.last]
}
