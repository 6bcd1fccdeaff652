package repo

import (
	"context"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/tree"
)

// Blocks are differences to what came before. When that is forgotten, it stays
// as a leftover: chunks needed to decode others, and by no snapshot. Rebasing
// gives the blocks that lean on leftovers another dictionary, of what the
// snapshots that are kept have: the version of the file in the snapshot before,
// as if those in between had never been. What has none is stored in full.

const (
	// maxPredecessors bounds the IDs of what was at the place of blocks, and so
	// memory. Blocks beyond it get what lies below the leftovers.
	maxPredecessors = 1 << 21
	// rebaseBytes bounds the packs that one prune writes anew to rebase: they
	// can all go only when that is done.
	rebaseBytes = 4 << 30
	// worthWriting is which part of what is written anew to rebase has to be saved
	// by that, as a divisor.
	worthWriting = 8
	// groupTrials bounds how many blocks of a group are tried.
	groupTrials = 12
)

// rebaser plans what is to be rebased.
type rebaser struct {
	u      *usage
	x      *index.Index
	ghosts map[index.BlockRef]index.BlockRef // hold leftovers; to another one of the group
	lean   map[index.BlockRef]*leaner
	order  []index.BlockRef // those with a predecessor, as snapshots have them
	ids    int              // in all predecessors
}

// leaner is a block in use that needs leftovers.
type leaner struct {
	on     index.BlockRef // one of these
	path   int64          // bytes of those that are differences themselves
	depth  int
	near   bases // what is at its place in the snapshot before
	chosen bool
}

// rebase chooses blocks that are better stored with another dictionary, or with
// none: where leftovers are worth less than they cost. Leftovers of at most
// allowed bytes are let be; so is what would take more than budget bytes of packs
// to be written anew.
func (u *usage) rebase(ctx context.Context, allowed, budget int64) error {
	b := &rebaser{u: u, x: u.r.index, ghosts: map[index.BlockRef]index.BlockRef{}, lean: map[index.BlockRef]*leaner{}}
	if b.findGhosts() <= allowed {
		return nil
	}
	b.findLeaners()
	if err := b.findPredecessors(ctx); err != nil {
		return err
	}
	// Planned for all, tried, and planned again for those that are worth it.
	for _, l := range b.lean {
		l.chosen = true
	}
	b.plan()
	if err := b.choose(ctx, allowed == 0, budget); err != nil {
		return err
	}
	b.plan()
	return nil
}

// findGhosts returns the bytes of all leftovers.
func (b *rebaser) findGhosts() (weight int64) {
	for _, p := range b.x.Packs() {
		for _, ref := range p.Blocks {
			if n := b.leftover(ref); n > 0 {
				b.ghosts[ref] = ref
				weight += n
			}
		}
	}
	return weight
}

// leftover returns the bytes of the leftovers in a block.
func (b *rebaser) leftover(ref index.BlockRef) int64 {
	_, keep, of := b.u.keep(ref)
	_, used, _ := b.u.used.Block(ref)
	return b.weight(ref) * (keep - used) / max(of, 1)
}

// weight is what a block takes, in bytes, with its dictionary's IDs.
func (b *rebaser) weight(ref index.BlockRef) int64 {
	stored, dict := b.x.Needs(ref)
	return int64(stored) + int64(dictWeight(dict))
}

// under returns the leftovers that a block needs.
func (b *rebaser) under(ref index.BlockRef) (on []index.BlockRef) {
	_, dict := b.x.Needs(ref)
	for _, id := range dict {
		if loc, ok := b.x.Lookup(id); ok && b.ghost(id, loc) && !slices.Contains(on, loc.Block) {
			on = append(on, loc.Block)
		}
	}
	return on
}

// ghost reports whether a chunk is a leftover.
func (b *rebaser) ghost(id chunk.ID, loc index.Location) bool {
	_, is := b.ghosts[loc.Block]
	return is && !b.u.used.Has(id)
}

// group returns the leftover that stands for all that hang together with one.
func (b *rebaser) group(ref index.BlockRef) index.BlockRef {
	for b.ghosts[ref] != ref {
		b.ghosts[ref] = b.ghosts[b.ghosts[ref]]
		ref = b.ghosts[ref]
	}
	return ref
}

func (b *rebaser) join(refs ...index.BlockRef) {
	for _, ref := range refs[1:] {
		b.ghosts[b.group(ref)] = b.group(refs[0])
	}
}

func (b *rebaser) findLeaners() {
	for ref := range b.ghosts {
		b.join(append(b.under(ref), ref)...)
	}
	walk := newChainWalk(b.x)
	for _, p := range b.x.Packs() {
		for _, ref := range p.Blocks {
			if !b.u.used.Any(ref) {
				continue
			}
			on := b.under(ref)
			if len(on) == 0 {
				continue
			}
			b.join(on...)
			l := &leaner{on: on[0], depth: walk.over(ref)}
			seen := map[index.BlockRef]bool{}
			for len(on) > 0 {
				ghost := on[len(on)-1]
				on = on[:len(on)-1]
				if seen[ghost] {
					continue
				}
				seen[ghost] = true
				on = append(on, b.under(ghost)...)
				if _, dict := b.x.Needs(ghost); len(dict) > 0 {
					l.path += b.weight(ghost)
				}
			}
			b.lean[ref] = l
		}
	}
}

// findPredecessors looks at what each snapshot has changed since the one before
// it of the same device, and notes what was at the place of the chunks in
// blocks that lean on leftovers.
func (b *rebaser) findPredecessors(ctx context.Context) error {
	for _, mine := range byDevice(b.u.list) {
		slices.SortStableFunc(mine, func(a, b *Snapshot) int { return a.Time.Compare(b.Time) })
		for i := 1; i < len(mine); i++ {
			err := tree.Diff(ctx, b.u.r.Chunk, mine[i-1].Root, mine[i].Root, func(old, now *tree.Entry) error {
				if old == nil || now == nil || b.ids > maxPredecessors {
					return nil
				}
				return b.file(ctx, &old.Content, &now.Content)
			})
			if err != nil {
				return treeDamage(err)
			}
		}
	}
	return nil
}

// file notes the predecessors of the chunks of one file.
func (b *rebaser) file(ctx context.Context, old, now *tree.Content) error {
	p := b.u.r.newPredecessor(old)
	if p == nil {
		return nil
	}
	p.load(ctx)
	off := int64(0)
	return treeDamage(now.Chunks(ctx, b.u.r.Chunk, func(id chunk.ID) error {
		loc, ok := b.x.Lookup(id)
		if !ok {
			return b.u.r.unknown(id)
		}
		at := off
		off += int64(loc.Size)
		l := b.lean[loc.Block]
		if _, there := p.places[id]; there || l == nil {
			p.met(id, at)
			return nil
		}
		near, far := p.around(ctx, at, int(loc.Size))
		if b.far(loc.Block) {
			near = far
		}
		if len(near) == 0 {
			return nil
		}
		if len(l.near.list) == 0 {
			b.order = append(b.order, loc.Block)
		}
		b.ids -= len(l.near.list)
		l.near.add(near)
		b.ids += len(l.near.list)
		return nil
	}))
}

// far reports whether a block was encoded with more than what was at its place:
// its pages had moved.
func (b *rebaser) far(ref index.BlockRef) bool {
	size := int64(0)
	_, dict := b.x.Needs(ref)
	for _, id := range dict {
		n, _ := b.x.Size(id)
		size += int64(n)
	}
	return size >= b.x.PlainSize(ref)+farMargin
}
