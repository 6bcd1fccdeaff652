package repo

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/tree"
)

// Blocks are differences to what came before. When that is forgotten, it stays
// as a leftover: chunks needed to decode others, and by no snapshot. Rebasing
// gives the blocks that lean on leftovers another dictionary, of what the
// snapshots that are kept have: the version of the file in the snapshot before,
// as if those in between had never been. What has none is stored in full.

const (
	// maxRebased bounds the IDs of the dictionaries that one prune plans, and so
	// its memory; the next prune goes on.
	maxRebased = 1 << 21
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
	ids    int              // in all dictionaries
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
			walk := newChainWalk(b.x)
			_, block := b.x.Block(ref)
			l := &leaner{on: on[0]}
			for _, id := range block.Dict {
				if d, ok := walk.depth(id, 1); ok {
					l.depth = max(l.depth, d+1)
				}
			}
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
				if old == nil || now == nil || b.ids > maxRebased {
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
			return &DamageError{"", fmt.Errorf("chunk %s is in no index", id.Short())}
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

// choose picks the groups of leftovers that are worth less than they cost.
// What it would take to do without them is found by trying some of the blocks.
// thorough takes whatever saves something, however much is to be written for it.
func (b *rebaser) choose(ctx context.Context, thorough bool, budget int64) error {
	type group struct {
		weight  int64 // of its leftovers
		leaners []index.BlockRef
	}
	groups := map[index.BlockRef]*group{}
	for ref := range b.ghosts {
		root := b.group(ref)
		if groups[root] == nil {
			groups[root] = &group{}
		}
		groups[root].weight += b.leftover(ref)
	}
	for ref, l := range b.lean {
		g := groups[b.group(l.on)]
		g.leaners = append(g.leaners, ref)
	}
	for _, l := range b.lean {
		l.chosen = false
	}
	codec := pack.NewCodec(b.u.r.blocks)
	packs := map[pack.ID]bool{}
	total := int64(0)
	for _, g := range groups {
		total += g.weight
	}
	// The heaviest first: when half of all has been looked at, it shows whether
	// this comes to anything.
	order := slices.SortedFunc(maps.Values(groups), func(x, y *group) int { return cmp.Compare(y.weight, x.weight) })
	sizes := map[pack.ID]int64{}
	for _, p := range b.x.Packs() {
		sizes[p.ID] = p.Size
	}
	var saved, written, seen int64
	for _, g := range order {
		if !thorough && seen > total/2 && saved < written/worthWriting/2 {
			break
		}
		seen += g.weight
		if len(g.leaners) == 0 {
			continue
		}
		slices.Sort(g.leaners)
		size := int64(0)
		more := map[pack.ID]bool{}
		for _, ref := range g.leaners {
			id, _ := b.x.Block(ref)
			if !packs[id] && !more[id] {
				more[id] = true
				size += sizes[id]
			}
		}
		if written+size > budget {
			continue // before anything is read to find out
		}
		step := (len(g.leaners) + groupTrials - 1) / groupTrials
		var before, after, path, all int64
		for _, ref := range g.leaners {
			all += b.lean[ref].path + 1
		}
		for i := 0; i < len(g.leaners); i += step {
			ref := g.leaners[i]
			n, err := b.try(ctx, codec, ref)
			if err != nil {
				return err
			}
			path += b.lean[ref].path + 1
			before += b.weight(ref) - b.leftover(ref)
			after += n
		}
		// What a block costs goes by what it has been through.
		cost := int64(float64(after-before) / float64(path) * float64(all))
		// Some were not tried, and writing costs something, too.
		if cost+cost/8 >= g.weight {
			continue
		}
		written += size
		saved += g.weight - cost
		b.u.rebaseCost += cost
		maps.Copy(packs, more)
		for _, ref := range g.leaners {
			b.lean[ref].chosen = true
		}
	}
	if !thorough && saved < written/worthWriting {
		for _, l := range b.lean {
			l.chosen = false
		}
		b.u.rebaseCost = 0
	}
	return nil
}

// try returns what is in use of a block would take without leftovers.
func (b *rebaser) try(ctx context.Context, codec *pack.Codec, ref index.BlockRef) (int64, error) {
	_, block := b.x.Block(ref)
	used, _, _ := b.u.used.Block(ref)
	r := run{}
	for i, c := range block.Chunks {
		if !used[i] {
			continue
		}
		plain, err := b.u.r.Chunk(ctx, c.ID)
		if err != nil {
			return 0, err
		}
		r.plain, r.chunks = append(r.plain, plain...), append(r.chunks, c)
	}
	ids := b.u.rebased[ref]
	var frame []byte
	if len(ids) > 0 {
		if dict, _, err := b.u.r.dictionary(ctx, ids, 1, detours{}); err == nil {
			frame, err = codec.Delta(r.plain, dict.b)
			dict.free()
			if err != nil {
				return 0, err
			}
		}
	}
	sealed, stored, err := sealRun(codec, nil, &r, frame, ids)
	return int64(len(sealed) + dictWeight(stored.Dict)), err
}

// wants returns the dictionary that a block should have, but for the bounds.
func (b *rebaser) wants(ref index.BlockRef) []chunk.ID {
	l := b.lean[ref]
	if len(l.near.list) == 0 {
		return b.beneath(ref)
	}
	ids := make([]chunk.ID, len(l.near.list))
	for i, n := range l.near.list {
		ids[i] = n.id
	}
	return ids
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
			_, dict := b.x.Needs(ref)
			depth := 0
			for _, id := range dict {
				if d, ok := walk.depth(id, 1); ok {
					depth = max(depth, d+1)
				}
			}
			at[min(depth, pack.MaxDepth)] = append(at[min(depth, pack.MaxDepth)], ref)
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
