// Package chain keeps chains of deltas short: it chooses dictionaries for which a
// block can be decoded at a bounded cost.
//
// It knows blocks by an index, and by a plan for those that will be written. It
// reads no packs.
package chain

import (
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

// Bounds on chains of deltas. A block's chain is the block and all blocks that
// have to be decoded to decode it.
const (
	// MaxDepth is below what the format allows (pack.MaxDepth), so that
	// other programs and later versions may go a little farther.
	MaxDepth = 8
	// Factor bounds the stored bytes of a chain, as a multiple of the
	// block's plaintext; minChain is always allowed.
	Factor    = 3
	MinStored = 2 << 20
	// MaxJoined bounds the stored bytes of the chain of a block that a chunk of
	// another file may join. The earlier versions of small files are in a block
	// each, and a block of many such files would need too much.
	MaxJoined = 256 << 10
)

// MaxStored bounds the stored bytes of the chain of a block, given its plaintext.
func MaxStored(plain int) int { return max(Factor*plain, MinStored) }

// Plan describes blocks that will be written and are in no index yet.
type Plan interface {
	// location returns where a chunk will be, if it is in a planned block.
	Location(id chunk.ID) (index.Location, bool)
	// block describes a planned block.
	Block(ref index.BlockRef) (b PlannedBlock, ok bool)
	// unusable reports whether a block must not be needed: it goes, or its own
	// dictionary is not known yet.
	Unusable(ref index.BlockRef) bool
}

// PlannedBlock is what the rules ask about a planned block.
type PlannedBlock struct {
	Stored uint32 // sealed bytes
	Plain  int64  // bytes of plaintext
	Dict   []chunk.ID
}

// Rule keeps chains within their bounds. plan, if not nil, goes before the
// index.
type Rule struct {
	Index *index.Index
	Plan  Plan
}

// lookup is the index's Lookup, with the plan carried out.
func (rule Rule) lookup(id chunk.ID) (index.Location, bool) {
	if rule.Plan != nil {
		if loc, ok := rule.Plan.Location(id); ok {
			return loc, true
		}
	}
	return rule.Index.Lookup(id)
}

// needs is the index's Dependencies, with the plan carried out.
func (rule Rule) needs(ref index.BlockRef) (stored uint32, dict []chunk.ID) {
	if rule.Plan != nil {
		if b, ok := rule.Plan.Block(ref); ok {
			return b.Stored, b.Dict
		}
	}
	return rule.Index.Dependencies(ref)
}

// plainSize is the index's PlainSize, with the plan carried out.
func (rule Rule) plainSize(ref index.BlockRef) int64 {
	if rule.Plan != nil {
		if b, ok := rule.Plan.Block(ref); ok {
			return b.Plain
		}
	}
	return rule.Index.PlainSize(ref)
}

// Bound returns a dictionary for which the chain stays within its bounds, in
// stored bytes and in depth. A chunk that lies too deep, or needs too much, is
// replaced by what is at its place in the dictionary that it was itself
// encoded with: an older state.
func (rule Rule) Bound(ids []chunk.ID, limit int) ([]chunk.ID, bool) {
	for range 2 * pack.MaxDepth {
		c := rule.Walk()
		deepest := 0
		for _, id := range ids {
			d, ok := c.Depth(id, 0)
			if !ok {
				return nil, false
			}
			deepest = max(deepest, d)
		}
		switch {
		case len(ids) == 0:
			return nil, false
		case deepest >= MaxDepth:
			ids = c.older(ids)
		case c.Stored <= limit:
			return ids, true
		case deepest == 0:
			return nil, false
		default:
			ids = c.shallower(ids, deepest-1)
		}
		if len(ids) > pack.MaxDictChunks {
			return nil, false
		}
	}
	return nil, false
}

// Walk looks at what decoding takes.
type Walk struct {
	Rule
	depths map[index.BlockRef]int
	Stored int // bytes of all blocks met
}

// NewWalk returns a walk of an index as it is, without a plan.
func NewWalk(x *index.Index) *Walk { return Rule{Index: x}.Walk() }

// Walk returns a new walk.
func (rule Rule) Walk() *Walk {
	return &Walk{Rule: rule, depths: map[index.BlockRef]int{}}
}

// Depth returns the depth of the block that a chunk is in.
func (c *Walk) Depth(id chunk.ID, above int) (int, bool) {
	loc, ok := c.lookup(id)
	if !ok || above > pack.MaxDepth {
		return 0, false
	}
	if d, ok := c.depths[loc.Block]; ok {
		return d, true
	}
	if c.Plan != nil && c.Plan.Unusable(loc.Block) {
		return 0, false
	}
	stored, dict := c.needs(loc.Block)
	c.Stored += int(stored)
	depth := 0
	for _, id := range dict {
		d, ok := c.Depth(id, above+1)
		if !ok {
			return 0, false
		}
		depth = max(depth, d+1)
	}
	c.depths[loc.Block] = depth
	return depth, true
}

// DepthOf returns the depth of a block, as far as its dictionary is known.
func (c *Walk) DepthOf(ref index.BlockRef) int {
	_, dict := c.needs(ref)
	depth := 0
	for _, id := range dict {
		if d, ok := c.Depth(id, 1); ok {
			depth = max(depth, d+1)
		}
	}
	return depth
}

// With looks at more chunks and returns the stored bytes of all blocks met.
func (c *Walk) With(x *index.Index, more []Base) int {
	if c.depths == nil {
		c.Index, c.depths = x, map[index.BlockRef]int{}
	}
	for _, m := range more {
		c.Depth(m.ID, 0)
	}
	return c.Stored
}

// older replaces the chunks that lie too deep by an older state of their place.
func (c *Walk) older(ids []chunk.ID) []chunk.ID {
	found := newFound()
	for _, id := range ids {
		loc, _ := c.lookup(id)
		limit := MaxDepth
		if c.depths[loc.Block] >= MaxDepth {
			limit = c.attach(loc.Block)
		}
		c.within(found, id, limit)
	}
	return found.ids
}

// shallower replaces all chunks deeper than limit.
func (c *Walk) shallower(ids []chunk.ID, limit int) []chunk.ID {
	found := newFound()
	for _, id := range ids {
		c.within(found, id, limit)
	}
	return found.ids
}

// found gathers chunks, each once. It knows what has been looked into: chunks
// of one block lead to the same chunks below, so there are very many ways to
// each.
type found struct {
	ids  []chunk.ID
	seen map[visit]struct{}
}

// visit is a chunk that was looked into for what is at a depth below it.
type visit struct {
	id    chunk.ID
	limit int
}

func newFound() *found { return &found{seen: map[visit]struct{}{}} }

// within adds what a chunk leads to at a depth of at most limit.
func (c *Walk) within(f *found, id chunk.ID, limit int) {
	if _, ok := f.seen[visit{id, limit}]; ok || len(f.ids) > pack.MaxDictChunks {
		return
	}
	f.seen[visit{id, limit}] = struct{}{}
	loc, _ := c.lookup(id)
	if c.depths[loc.Block] <= limit {
		if !slices.Contains(f.ids, id) {
			f.ids = append(f.ids, id)
		}
		return
	}
	for _, older := range c.Place(loc) {
		c.within(f, older, limit)
	}
}

// Place returns the part of a block's dictionary that is where a chunk of the
// block is in the plaintext. Blocks and their dictionaries are in one order, so
// places correspond, except for what was added or has moved. There is no margin for
// that: of blocks of small files it would take in all of the dictionary, and
// dictionaries would grow from state to state.
func (c *Walk) Place(loc index.Location) []chunk.ID {
	_, dict := c.needs(loc.Block)
	sizes, total := make([]int64, len(dict)), int64(0)
	for i, id := range dict {
		size, _ := c.Index.Size(id)
		sizes[i] = int64(size)
		total += sizes[i]
	}
	plain := max(c.plainSize(loc.Block), 1)
	from := int64(loc.Start) * total / plain
	to := (int64(loc.Start)+int64(loc.Size))*total/plain + 1
	var out []chunk.ID
	at := int64(0)
	for i, id := range dict {
		if at < to && at+sizes[i] > from {
			out = append(out, id)
		}
		at += sizes[i]
	}
	return out
}

// attach returns the depth at which a new state is to join the chain of a
// block, whose length has come to its limit. The deltas above are in effect
// made one: as many as are together smaller than the next. So the deltas of a
// chain shrink from its base to its end, a change is written again about as
// often as the logarithm of the number of states, and the limit is reached
// again only after several more.
func (c *Walk) attach(ref index.BlockRef) int {
	merged := uint32(0)
	stored, dict := c.needs(ref)
	for depth := c.depths[ref]; depth > 1; depth-- {
		merged += stored
		for _, id := range dict {
			if loc, _ := c.lookup(id); c.depths[loc.Block] == depth-1 {
				stored, dict = c.needs(loc.Block)
				break
			}
		}
		if merged < stored {
			return depth - 1
		}
	}
	return 0
}
