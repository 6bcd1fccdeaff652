// Package rebase plans to store blocks with other dictionaries, or none, so that
// chunks that are kept only as bases can be removed.
//
// Blocks are deltas to earlier versions. When the snapshots with these versions are
// forgotten, their chunks stay as leftovers. A rebase stores the deltas again as if
// the forgotten snapshots had never existed: the predecessor of each kept snapshot
// is the previous kept snapshot. This also merges the many small deltas of
// forgotten snapshots. For chunks without a predecessor, the dictionary is the live
// bases of their old block; if there are none, the chunks are stored in full.
//
// The package changes nothing: package prune carries out its plans.
package rebase

import (
	"context"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/usage"
	"github.com/snap-backup/snap/repo/internal/writer"
)

const (
	// maxNewChunks bounds how many IDs of new chunks and their bases are held in
	// memory. Other chunks get the live bases of their block.
	maxNewChunks = 1 << 20
	// MaxBytes bounds two numbers of bytes: of the packs that one rebase rewrites,
	// and of the plaintext that it encodes to measure the result. The old packs can
	// be removed only after all new ones are written.
	MaxBytes = 4 << 30
	// A rebase must save at least 1/worthWriting of the bytes that it writes.
	worthWriting = 8
)

// rebaser is one run of Find.
type rebaser struct {
	u          *usage.Usage
	x          *index.Index
	leftovers  map[index.BlockRef]bool           // blocks with leftovers
	dependents map[index.BlockRef]*dependent     // blocks that need leftovers
	roots      map[index.BlockRef]index.BlockRef // union-find: from a block to another of its group
	newChunks  []newChunk                        // in the order of snapshots
	met        map[chunk.ID]struct{}             // the IDs of newChunks
	ids        int                               // number of IDs in newChunks
}

// dependent is a block that needs leftovers to be decoded.
type dependent struct {
	kind   pack.Kind
	depth  int
	chosen bool
}

// newChunk is a chunk of a dependent that is in a snapshot and not in the snapshot
// before it.
type newChunk struct {
	chunk pack.Chunk
	block index.BlockRef
	in    *record.Snapshot
	at    writer.Region
	near  []chain.Base // chunks at its position in the snapshot before
}

// Find plans a rebase of the blocks whose leftovers cost more than they save. The
// plan rewrites packs of at most budget bytes. It is nil if there are no such blocks,
// or if all leftovers take at most allowed bytes.
func Find(ctx context.Context, u *usage.Usage, allowed, budget int64, progress func(done, total int64)) (*Plan, error) {
	b := &rebaser{
		u: u, x: u.Store.Index, leftovers: map[index.BlockRef]bool{}, dependents: map[index.BlockRef]*dependent{},
		roots: map[index.BlockRef]index.BlockRef{}, met: map[chunk.ID]struct{}{},
	}
	if b.findLeftovers() <= allowed {
		return nil, nil
	}
	b.findDependents()
	groups := b.groups()
	total := b.chooseWithin(groups, budget)
	if total == 0 {
		return nil, nil
	}
	if err := b.findNewChunks(ctx); err != nil {
		return nil, err
	}
	if allowed > 0 {
		if total = b.dropUnpromising(groups); total == 0 {
			return nil, nil
		}
	}
	l, err := b.makePlan(ctx, func(tried int64) { progress(tried, total) })
	if err != nil {
		return nil, err
	}
	if !b.choose(groups, l, budget, allowed == 0) {
		return nil, nil
	}
	return l.stillChosen(b), nil
}

// findLeftovers finds the blocks with leftovers, and returns the bytes of leftovers.
func (b *rebaser) findLeftovers() (weight int64) {
	for _, p := range b.x.Packs() {
		for _, ref := range p.Blocks {
			if n := b.leftoverBytes(ref); n > 0 {
				b.leftovers[ref] = true
				b.roots[ref] = ref
				weight += n
			}
		}
	}
	return weight
}

// leftoverBytes returns the bytes of leftovers in a block, at least 1 if it has any.
func (b *rebaser) leftoverBytes(ref index.BlockRef) int64 {
	_, keep, total := b.u.Keep(ref)
	_, used, _ := b.u.Used.Block(ref)
	if keep == used {
		return 0
	}
	return max(b.weight(ref)*(keep-used)/total, 1)
}

// inUse returns the bytes of a block that are in use by snapshots.
func (b *rebaser) inUse(ref index.BlockRef) int64 {
	_, used, total := b.u.Used.Block(ref)
	return b.weight(ref) * used / max(total, 1)
}

// weight returns the stored bytes of a block, with its description.
func (b *rebaser) weight(ref index.BlockRef) int64 {
	stored, dict := b.x.Dependencies(ref)
	return int64(stored) + int64(writer.DictWeight(dict)) + blockWeight
}

// blockWeight is the approximate size of a block's description in a pack header and
// the index, without its chunks and dictionary.
const blockWeight = 16

// group returns the root of a block's group, which identifies the group. A group
// consists of the blocks that are connected by leftovers.
func (b *rebaser) group(ref index.BlockRef) index.BlockRef {
	for b.roots[ref] != ref {
		b.roots[ref] = b.roots[b.roots[ref]]
		ref = b.roots[ref]
	}
	return ref
}

// joinGroups merges the groups of some blocks.
func (b *rebaser) joinGroups(refs ...index.BlockRef) {
	for _, ref := range refs[1:] {
		b.roots[b.group(ref)] = b.group(refs[0])
	}
}

// findDependents finds the blocks that need leftovers, directly or through other
// blocks. All blocks of a group are stored again together, so that no other block gets
// deeper.
func (b *rebaser) findDependents() {
	walk := chain.NewWalk(b.x)
	type block struct {
		ref   index.BlockRef
		kind  pack.Kind
		depth int
	}
	var blocks []block
	for _, p := range b.x.Packs() {
		for _, ref := range p.Blocks {
			if d := walk.DepthOf(ref); d > 0 {
				blocks = append(blocks, block{ref, p.Kind, d})
			}
		}
	}
	slices.SortStableFunc(blocks, func(x, y block) int { return x.depth - y.depth })
	for _, k := range blocks {
		needs := b.neededBy(k.ref)
		if len(needs) == 0 {
			continue
		}
		if _, ok := b.roots[k.ref]; !ok {
			b.roots[k.ref] = k.ref
		}
		b.joinGroups(append(needs, k.ref)...)
		// Include unused blocks: if they stayed, a backup could reuse them after
		// their bases are removed.
		if b.u.Used.Any(k.ref) || !b.u.InUse(k.ref) {
			b.dependents[k.ref] = &dependent{kind: k.kind, depth: k.depth}
		}
	}
}

// neededBy returns the dependents and the blocks with leftovers that a block needs
// directly.
func (b *rebaser) neededBy(ref index.BlockRef) (refs []index.BlockRef) {
	_, dict := b.x.Dependencies(ref)
	for _, id := range dict {
		loc, ok := b.x.Lookup(id)
		if ok && (b.isLeftover(id, loc) || b.dependents[loc.Block] != nil) && !slices.Contains(refs, loc.Block) {
			refs = append(refs, loc.Block)
		}
	}
	return refs
}

// isLeftover reports whether a chunk is a leftover.
func (b *rebaser) isLeftover(id chunk.ID, loc index.Location) bool {
	return b.leftovers[loc.Block] && !b.u.Used.Has(id)
}
