package rebase

import (
	"cmp"
	"maps"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/writer"
)

// group is a set of leftovers and dependents that are connected by dictionaries.
type group struct {
	root       index.BlockRef
	weight     int64 // bytes of leftovers
	before     int64 // bytes of the chunks in use in the dependents
	plain      int64 // bytes of plaintext
	after      int64 // bytes of the planned blocks that replace the dependents
	gain       int64 // bytes saved
	dependents []index.BlockRef
}

// groups returns all groups, the heaviest first.
func (b *rebaser) groups() []*group {
	found := map[index.BlockRef]*group{}
	at := func(ref index.BlockRef) *group {
		root := b.group(ref)
		if found[root] == nil {
			found[root] = &group{root: root}
		}
		return found[root]
	}
	for ref := range b.leftovers {
		at(ref).weight += b.leftoverBytes(ref)
	}
	for ref := range b.dependents {
		_, used, _ := b.u.Used.Block(ref)
		g := at(ref)
		g.dependents = append(g.dependents, ref)
		g.before += b.inUse(ref)
		g.plain += used
	}
	return slices.SortedFunc(maps.Values(found), func(x, y *group) int {
		return cmp.Or(cmp.Compare(y.weight, x.weight), cmp.Compare(x.root, y.root))
	})
}

// rewriteSet is the set of packs that must be rewritten for some groups.
type rewriteSet struct {
	x       *index.Index
	sizes   map[pack.ID]int64 // of all packs with chunks in use
	counted map[pack.ID]bool  // the packs in the set
	bytes   int64             // the sum of their sizes
}

func (b *rebaser) newRewriteSet() *rewriteSet {
	p := &rewriteSet{x: b.x, sizes: map[pack.ID]int64{}, counted: map[pack.ID]bool{}}
	for _, pk := range b.x.Packs() {
		if slices.ContainsFunc(pk.Blocks, b.u.InUse) { // others are removed, not rewritten
			p.sizes[pk.ID] = pk.Size
		}
	}
	return p
}

// moreBytes returns how many more bytes of packs must be rewritten if a group is added.
func (p *rewriteSet) moreBytes(g *group) (n int64) {
	for id := range p.ofGroup(g) {
		if !p.counted[id] {
			n += p.sizes[id]
		}
	}
	return n
}

func (p *rewriteSet) add(g *group) {
	p.bytes += p.moreBytes(g)
	maps.Copy(p.counted, p.ofGroup(g))
}

func (p *rewriteSet) ofGroup(g *group) map[pack.ID]bool {
	in := map[pack.ID]bool{}
	for _, ref := range g.dependents {
		id, _ := p.x.Block(ref)
		in[id] = true
	}
	return in
}

// chooseWithin chooses groups to try, so that their packs stay within the budget. It
// returns the bytes of their plaintext. It reads nothing.
func (b *rebaser) chooseWithin(groups []*group, budget int64) (plain int64) {
	packs := b.newRewriteSet()
	for _, g := range groups {
		if len(g.dependents) == 0 || packs.bytes+packs.moreBytes(g) > budget || plain+g.plain > MaxBytes {
			continue
		}
		packs.add(g)
		plain += g.plain
		b.set(g, true)
	}
	return plain
}

func (b *rebaser) set(g *group, chosen bool) {
	for _, ref := range g.dependents {
		b.dependents[ref].chosen = chosen
	}
}

// dropUnpromising drops groups that will probably not get smaller. It estimates without
// encoding: a chunk with a predecessor keeps its present cost, and any other chunk
// has the cost of storing it in full. It returns the bytes of plaintext to try, or
// 0 if the groups together save too little.
func (b *rebaser) dropUnpromising(groups []*group) (plain int64) {
	after := map[index.BlockRef]int64{} // by root
	for i := range b.newChunks {
		own, _ := b.cost(b.newChunks[i].chunk.ID)
		after[b.group(b.newChunks[i].block)] += own
	}
	for ref, l := range b.dependents {
		if !l.chosen {
			continue
		}
		used, _, _ := b.u.Used.Block(ref)
		_, block := b.x.Block(ref)
		for i, c := range block.Chunks {
			if _, met := b.met[c.ID]; used[i] && !met {
				_, bottom := b.cost(c.ID)
				after[b.group(ref)] += bottom
			}
		}
	}
	for _, g := range b.chosen(groups) {
		g.gain = g.weight + g.before - after[g.root]
		b.set(g, g.gain > 0)
	}
	if !b.savesEnough(groups, worthWriting) {
		return 0
	}
	for _, g := range b.chosen(groups) {
		plain += g.plain
	}
	return plain
}

// savesEnough reports whether the chosen groups save at least 1/part of the packs that
// must be rewritten. It drops each group that saves less than 1/part of the packs
// that are rewritten only for this group.
func (b *rebaser) savesEnough(groups []*group, part int64) bool {
	packs, users := b.newRewriteSet(), map[pack.ID]int{}
	chosen := b.chosen(groups)
	for _, g := range chosen {
		for id := range packs.ofGroup(g) {
			users[id]++
		}
	}
	slices.SortStableFunc(chosen, func(x, y *group) int { return cmp.Compare(x.gain, y.gain) })
	saved := int64(0)
	for _, g := range chosen {
		alone := int64(0)
		for id := range packs.ofGroup(g) {
			if users[id] == 1 {
				alone += packs.sizes[id]
			}
		}
		if g.gain < alone/part {
			b.set(g, false)
			for id := range packs.ofGroup(g) {
				users[id]--
			}
			continue
		}
		packs.add(g)
		saved += g.gain
	}
	return saved > packs.bytes/part
}

// chosen returns the chosen groups.
func (b *rebaser) chosen(groups []*group) []*group {
	return slices.DeleteFunc(slices.Clone(groups), func(g *group) bool {
		return len(g.dependents) == 0 || !b.dependents[g.dependents[0]].chosen
	})
}

// choose drops groups whose planned blocks would not save enough, and reports
// whether the others are worth writing. If thorough is true, nearly any saving is
// enough.
func (b *rebaser) choose(groups []*group, l *Plan, budget int64, thorough bool) bool {
	byRoot := map[index.BlockRef]*group{}
	for _, g := range groups {
		byRoot[g.root] = g
	}
	for _, u := range l.Blocks {
		byRoot[b.group(u.dependent)].after += int64(u.stored) + int64(writer.DictWeight(u.Dict)) + blockWeight
	}
	for _, g := range b.chosen(groups) {
		// Demand a margin, since writing has a cost, too.
		g.gain = g.weight + g.before - g.after
		b.set(g, !l.damaged[g.root] && g.gain > max(g.after-g.before, 0)/8+g.after/32)
	}
	// Planned blocks may be much larger than the small deltas that they replace.
	packs, more := b.newRewriteSet(), int64(0)
	for _, g := range b.chosen(groups) {
		grows := max(g.after-g.before, 0)
		if packs.bytes+packs.moreBytes(g)+more+grows > budget {
			b.set(g, false)
			continue
		}
		packs.add(g)
		more += grows
	}
	part := int64(worthWriting)
	if thorough {
		part *= 16
	}
	if !b.savesEnough(groups, part) {
		return false
	}
	for _, g := range b.chosen(groups) {
		l.Cost += g.after - g.before
	}
	return true
}
