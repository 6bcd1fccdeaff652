package repo

import (
	"cmp"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

// wants returns the dictionary that a block should have, but for the bounds.
func (b *rebaser) wants(ref index.BlockRef) []chunk.ID {
	l := b.lean[ref]
	if len(l.near.list) == 0 {
		return b.beneath(ref)
	}
	return l.near.ids()
}

// plan gives each chosen block its dictionary. It must not lead back to the
// block, nor to one that has none yet; and no block may come to lie so deep that
// what leans on it would lie too deep.
func (b *rebaser) plan() {
	clear(b.u.rebased)
	done := map[index.BlockRef]planned{}
	rule := chainRule{x: b.x, plan: done, avoid: func(ref index.BlockRef) bool {
		l := b.lean[ref]
		_, ok := done[ref]
		return l != nil && l.chosen && !ok
	}}
	above := b.above()
	settle := func(ref index.BlockRef) {
		l := b.lean[ref]
		plain := b.x.PlainSize(ref)
		stored, _ := b.x.Needs(ref)
		dict, ok := rule.bound(b.wants(ref), maxChain(int(plain)), maxChainDepth-above[ref])
		if ok {
			done[ref] = planned{uint32(min(int64(stored)+l.path, plain)), dict}
		} else {
			done[ref] = planned{stored: uint32(plain)}
			dict = nil
		}
		b.u.rebased[ref] = dict
	}
	var others []index.BlockRef
	for ref, l := range b.lean {
		if l.chosen && len(l.near.list) == 0 {
			others = append(others, ref)
		}
	}
	slices.SortFunc(others, func(x, y index.BlockRef) int {
		return cmp.Or(cmp.Compare(b.lean[x].depth, b.lean[y].depth), cmp.Compare(x, y))
	})
	for _, ref := range others {
		settle(ref)
	}
	for _, ref := range b.order {
		if l := b.lean[ref]; l.chosen {
			settle(ref)
		}
	}
}

// above returns how many blocks that stay as they are lie above each block, one
// on the other, at most.
func (b *rebaser) above() map[index.BlockRef]int {
	walk := newChainWalk(b.x)
	at := make([][]index.BlockRef, pack.MaxDepth+1) // by depth
	for _, p := range b.x.Packs() {
		for _, ref := range p.Blocks {
			// What nothing needs may be needed again.
			if l := b.lean[ref]; l != nil && l.chosen {
				continue
			}
			depth := min(walk.over(ref), pack.MaxDepth)
			at[depth] = append(at[depth], ref)
		}
	}
	above := map[index.BlockRef]int{}
	for _, refs := range slices.Backward(at) {
		for _, ref := range refs {
			_, dict := b.x.Needs(ref)
			for _, id := range dict {
				if loc, ok := b.x.Lookup(id); ok {
					above[loc.Block] = max(above[loc.Block], above[ref]+1)
				}
			}
		}
	}
	return above
}

// beneath returns the chunks in use to which a block's dictionary leads, through
// leftovers.
func (b *rebaser) beneath(ref index.BlockRef) []chunk.ID {
	walk := newChainWalk(b.x)
	seen := map[chunk.ID]bool{}
	var found []chunk.ID
	_, open := b.x.Needs(ref)
	for open = slices.Clone(open); len(open) > 0 && len(found) < pack.MaxDictChunks; {
		id := open[0]
		open = open[1:]
		if seen[id] {
			continue
		}
		seen[id] = true
		loc, ok := b.x.Lookup(id)
		if !ok || !b.ghost(id, loc) {
			found = append(found, id)
			continue
		}
		open = append(open, walk.place(loc)...)
	}
	return found
}
