// Package chain keeps chains of deltas short: it chooses dictionaries with which the
// cost of decoding a block is bounded.
//
// It knows blocks from an index, and planned blocks from a plan. It reads no packs.
package chain

import (
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

// Bounds on chains of deltas. A block's chain is the block and all blocks that must
// be decoded to decode it.
const (
	// MaxDepth is below the limit of the format (pack.MaxDepth), so that later
	// versions of snap can raise it.
	MaxDepth = 8
	// Factor bounds the stored bytes of a chain, as a multiple of the block's
	// plaintext. MinStored bytes are always allowed.
	Factor    = 3
	MinStored = 2 << 20
	// A chunk of another file may join a block only if the block's chain has at
	// most MaxJoined stored bytes. The earlier versions of many small files can be
	// in many different blocks. Without this bound, a block could need all of them.
	MaxJoined = 256 << 10
)

// MaxStored bounds the stored bytes of the chain of a block, given the length of
// its plaintext.
func MaxStored(plain int) int { return max(Factor*plain, MinStored) }

// Plan describes blocks that will be written and are in no index yet.
type Plan interface {
	// Location returns where a chunk will be, if it is in a planned block.
	Location(id chunk.ID) (index.Location, bool)
	// Block describes a planned block.
	Block(ref index.BlockRef) (b PlannedBlock, ok bool)
	// Unusable reports whether chunks of a block must not become bases, because the
	// block will be removed or its own dictionary is not known yet.
	Unusable(ref index.BlockRef) bool
}

// PlannedBlock describes a planned block.
type PlannedBlock struct {
	Stored uint32 // sealed bytes
	Plain  int64  // bytes of plaintext
	Dict   []chunk.ID
}

// Rule keeps chains within their bounds. Plan, if not nil, takes precedence over the
// index.
type Rule struct {
	Index *index.Index
	Plan  Plan
}

// lookup is like the index's Lookup, as if the plan had been carried out.
func (rule Rule) lookup(id chunk.ID) (index.Location, bool) {
	if rule.Plan != nil {
		if loc, ok := rule.Plan.Location(id); ok {
			return loc, true
		}
	}
	return rule.Index.Lookup(id)
}

// dependencies is like the index's Dependencies, as if the plan had been carried out.
func (rule Rule) dependencies(ref index.BlockRef) (stored uint32, dict []chunk.ID) {
	if rule.Plan != nil {
		if b, ok := rule.Plan.Block(ref); ok {
			return b.Stored, b.Dict
		}
	}
	return rule.Index.Dependencies(ref)
}

// plainSize is like the index's PlainSize, as if the plan had been carried out.
func (rule Rule) plainSize(ref index.BlockRef) int64 {
	if rule.Plan != nil {
		if b, ok := rule.Plan.Block(ref); ok {
			return b.Plain
		}
	}
	return rule.Index.PlainSize(ref)
}

// Bound returns a dictionary with which the chain stays within its bounds: limit
// stored bytes, and MaxDepth. It replaces chunks of ids that are too deep, or need too
// many bytes, by older versions. The older version of a chunk is what Place returns:
// the chunks at the same position in the dictionary of the chunk's block. Bound returns
// false if it finds no dictionary within the bounds.
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
			ids = c.replaceDeep(ids)
		case c.Stored <= limit:
			return ids, true
		case deepest == 0:
			return nil, false
		default:
			ids = c.makeShallower(ids, deepest-1)
		}
		if len(ids) > pack.MaxDictChunks {
			return nil, false
		}
	}
	return nil, false
}

// Walk measures the cost of decoding chunks.
type Walk struct {
	Rule
	depths map[index.BlockRef]int
	Stored int // sealed bytes of all blocks visited
}

// NewWalk returns a walk of an index without a plan.
func NewWalk(x *index.Index) *Walk { return Rule{Index: x}.Walk() }

// Walk returns a new walk.
func (rule Rule) Walk() *Walk {
	return &Walk{Rule: rule, depths: map[index.BlockRef]int{}}
}

// Depth returns the depth of the block that a chunk is in. It returns false if the
// block cannot be decoded. above is the number of blocks that were visited on the way
// to it.
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
	stored, dict := c.dependencies(loc.Block)
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

// DepthOf returns the depth of a block, ignoring bases that cannot be decoded.
func (c *Walk) DepthOf(ref index.BlockRef) int {
	_, dict := c.dependencies(ref)
	depth := 0
	for _, id := range dict {
		if d, ok := c.Depth(id, 1); ok {
			depth = max(depth, d+1)
		}
	}
	return depth
}

// Visit visits the blocks of more chunks. It returns the sealed bytes of all blocks
// visited so far.
func (c *Walk) Visit(x *index.Index, more []Base) int {
	if c.depths == nil {
		c.Index, c.depths = x, map[index.BlockRef]int{}
	}
	for _, m := range more {
		c.Depth(m.ID, 0)
	}
	return c.Stored
}

// replaceDeep replaces chunks that are too deep by older versions.
func (c *Walk) replaceDeep(ids []chunk.ID) []chunk.ID {
	found := newCollected()
	for _, id := range ids {
		loc, _ := c.lookup(id)
		limit := MaxDepth
		if c.depths[loc.Block] >= MaxDepth {
			limit = c.attachDepth(loc.Block)
		}
		c.addWithin(found, id, limit)
	}
	return found.ids
}

// makeShallower replaces all chunks deeper than limit by older versions.
func (c *Walk) makeShallower(ids []chunk.ID, limit int) []chunk.ID {
	found := newCollected()
	for _, id := range ids {
		c.addWithin(found, id, limit)
	}
	return found.ids
}

// collected collects chunks, each once. It remembers visits, since there can be very
// many paths to a chunk: chunks of one block need the same bases.
type collected struct {
	ids  []chunk.ID
	seen map[visit]struct{}
}

// visit is a call of addWithin.
type visit struct {
	id    chunk.ID
	limit int
}

func newCollected() *collected { return &collected{seen: map[visit]struct{}{}} }

// addWithin adds a chunk if its depth is at most limit. Otherwise it adds the newest
// of its older versions whose depth is at most limit.
func (c *Walk) addWithin(f *collected, id chunk.ID, limit int) {
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
		c.addWithin(f, older, limit)
	}
}

// Place returns the chunks of a block's dictionary that are at the same position as
// a chunk in the block. Blocks and their dictionaries are in the same order, so
// positions correspond, except for content that was added or has moved. Place adds
// no margin for that: in blocks of small files, a margin would include the entire
// dictionary, and dictionaries would grow from version to version.
func (c *Walk) Place(loc index.Location) []chunk.ID {
	_, dict := c.dependencies(loc.Block)
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

// attachDepth returns the depth at which a new version joins the chain of a block
// whose depth is at its limit. The new version's delta repeats the changes of all
// deltas deeper than that. attachDepth goes from the end of the chain towards its base,
// and stops before a delta that is larger than all deltas behind it together. So deltas
// shrink from the base of a chain to its end, and the limit is reached again only after
// several versions. With n versions, a change is written about log n times.
func (c *Walk) attachDepth(ref index.BlockRef) int {
	merged := uint32(0)
	stored, dict := c.dependencies(ref)
	for depth := c.depths[ref]; depth > 1; depth-- {
		merged += stored
		for _, id := range dict {
			if loc, _ := c.lookup(id); c.depths[loc.Block] == depth-1 {
				stored, dict = c.dependencies(loc.Block)
				break
			}
		}
		if merged < stored {
			return depth - 1
		}
	}
	return 0
}
