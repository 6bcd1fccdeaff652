// Package rebase plans to store blocks with other dictionaries, or none, so that
// chunks can go that are kept only to decode others.
//
// Blocks are deltas to what came before. When that is forgotten, it stays as a
// leftover. And what is kept of many days is in as many small blocks. A rebase
// stores both anew, in the blocks that backups would have made without the
// forgotten days: each snapshot has the one before it, of those that are kept, as
// its predecessor. What has none is stored in full.
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
	// maxNewChunks bounds the chunks that are looked at and the IDs of what was at their
	// places, and so memory. Chunks beyond it get what lies below the leftovers.
	maxNewChunks = 1 << 20
	// MaxBytes bounds the packs that one prune writes anew to rebase, which can
	// all go only when that is done, and the plaintext that it encodes to see what
	// that would take.
	MaxBytes = 4 << 30
	// worthWriting is which part of what is written anew to rebase has to be saved
	// by that, as a divisor.
	worthWriting = 8
)

// rebaser plans what is to be rebased.
type rebaser struct {
	u          *usage.Usage
	x          *index.Index
	leftovers  map[index.BlockRef]bool           // hold leftovers
	dependents map[index.BlockRef]*dependent     // need leftovers, at some depth
	roots      map[index.BlockRef]index.BlockRef // of ghosts and leaners: another one of the group
	newChunks  []newChunk                        // as snapshots have them
	met        map[chunk.ID]struct{}             // of these
	ids        int                               // in all of them
}

// dependent is a block that needs leftovers, or a block that does.
type dependent struct {
	kind   pack.Kind
	depth  int
	chosen bool
}

// newChunk is a chunk of a leaner that a snapshot has and the one before it has not.
type newChunk struct {
	chunk pack.Chunk
	block index.BlockRef
	in    *record.Snapshot
	at    writer.Region
	near  []chain.Base // what is at its place in the snapshot before
}

// Find plans to store blocks anew where leftovers are worth less than they
// cost. The plan is nil if there are none. Leftovers of at most allowed bytes
// stay; so does what would take more than budget bytes of packs to be written.
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
	total := b.within(groups, budget)
	if total == 0 {
		return nil, nil
	}
	if err := b.findNewChunks(ctx); err != nil {
		return nil, err
	}
	if allowed > 0 {
		if total = b.promising(groups); total == 0 {
			return nil, nil
		}
	}
	l, err := b.plan(ctx, func(tried int64) { progress(tried, total) })
	if err != nil {
		return nil, err
	}
	if !b.choose(groups, l, budget, allowed == 0) {
		return nil, nil
	}
	return l.only(b), nil
}

// findLeftovers returns the bytes of all leftovers.
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

// leftoverBytes returns the bytes of the leftovers in a block, at least 1 if there are any.
func (b *rebaser) leftoverBytes(ref index.BlockRef) int64 {
	_, keep, of := b.u.Keep(ref)
	_, used, _ := b.u.Used.Block(ref)
	if keep == used {
		return 0
	}
	return max(b.weight(ref)*(keep-used)/of, 1)
}

// inUse returns the bytes of what snapshots have of a block.
func (b *rebaser) inUse(ref index.BlockRef) int64 {
	_, used, of := b.u.Used.Block(ref)
	return b.weight(ref) * used / max(of, 1)
}

// weight is what a block takes, in bytes, with its description.
func (b *rebaser) weight(ref index.BlockRef) int64 {
	stored, dict := b.x.Dependencies(ref)
	return int64(stored) + int64(writer.DictWeight(dict)) + blockWeight
}

// blockWeight is about what a block takes in a pack's header and in the index,
// without its chunks and dictionary.
const blockWeight = 16

// group returns the block that stands for all that hang together with one.
func (b *rebaser) group(ref index.BlockRef) index.BlockRef {
	for b.roots[ref] != ref {
		b.roots[ref] = b.roots[b.roots[ref]]
		ref = b.roots[ref]
	}
	return ref
}

func (b *rebaser) join(refs ...index.BlockRef) {
	for _, ref := range refs[1:] {
		b.roots[b.group(ref)] = b.group(refs[0])
	}
}

// findDependents finds the blocks that need leftovers, and those that need these: so
// no block that stays comes to lie deeper when they are stored anew.
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
		on := b.under(k.ref)
		if len(on) == 0 {
			continue
		}
		if _, ok := b.roots[k.ref]; !ok {
			b.roots[k.ref] = k.ref
		}
		b.join(append(on, k.ref)...)
		// What nothing needs may be needed again: it goes, too.
		if b.u.Used.Any(k.ref) || !b.u.Live(k.ref) {
			b.dependents[k.ref] = &dependent{kind: k.kind, depth: k.depth}
		}
	}
}

// under returns the blocks with leftovers that a block needs, and the leaners.
func (b *rebaser) under(ref index.BlockRef) (on []index.BlockRef) {
	_, dict := b.x.Dependencies(ref)
	for _, id := range dict {
		loc, ok := b.x.Lookup(id)
		if ok && (b.isLeftover(id, loc) || b.dependents[loc.Block] != nil) && !slices.Contains(on, loc.Block) {
			on = append(on, loc.Block)
		}
	}
	return on
}

// isLeftover reports whether a chunk is a leftover.
func (b *rebaser) isLeftover(id chunk.ID, loc index.Location) bool {
	return b.leftovers[loc.Block] && !b.u.Used.Has(id)
}
