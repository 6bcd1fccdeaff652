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
	weight     int64 // of leftovers, in bytes
	before     int64 // of the chunks in use in the dependents
	plain      int64 // of the plaintext
	after      int64 // of the planned blocks that replace them
	gain       int64 // bytes that replacing them saves
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

// packsOf counts the packs that must be rewritten for groups.
type packsOf struct {
	x       *index.Index
	sizes   map[pack.ID]int64
	counted map[pack.ID]bool
	bytes   int64
}

func (b *rebaser) packs() *packsOf {
	p := &packsOf{x: b.x, sizes: map[pack.ID]int64{}, counted: map[pack.ID]bool{}}
	for _, pk := range b.x.Packs() {
		if slices.ContainsFunc(pk.Blocks, b.u.Live) { // others are removed, not rewritten
			p.sizes[pk.ID] = pk.Size
		}
	}
	return p
}

// more returns how many more bytes of packs must be rewritten if a group is added.
func (p *packsOf) more(g *group) (n int64) {
	for id := range p.of(g) {
		if !p.counted[id] {
			n += p.sizes[id]
		}
	}
	return n
}

func (p *packsOf) add(g *group) {
	p.bytes += p.more(g)
	maps.Copy(p.counted, p.of(g))
}

func (p *packsOf) of(g *group) map[pack.ID]bool {
	in := map[pack.ID]bool{}
	for _, ref := range g.dependents {
		id, _ := p.x.Block(ref)
		in[id] = true
	}
	return in
}

// within chooses the groups to try within the budget, and returns the bytes of their
// plaintext. It reads nothing.
func (b *rebaser) within(groups []*group, budget int64) (plain int64) {
	packs := b.packs()
	for _, g := range groups {
		if len(g.dependents) == 0 || packs.bytes+packs.more(g) > budget || plain+g.plain > MaxBytes {
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

// promising drops groups that will probably not get smaller. It estimates without
// encoding: a chunk with a predecessor keeps its present cost, and any other chunk
// has the cost of storing it in full. It returns the bytes of plaintext to try, or
// 0 if the groups together save too little.
func (b *rebaser) promising(groups []*group) (plain int64) {
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
	if !b.worth(groups, worthWriting) {
		return 0
	}
	for _, g := range b.chosen(groups) {
		plain += g.plain
	}
	return plain
}

// worth reports whether the chosen groups save at least 1/part of the packs that
// must be rewritten. It drops each group that saves less than 1/part of the packs
// that are rewritten only for this group.
func (b *rebaser) worth(groups []*group, part int64) bool {
	packs, users := b.packs(), map[pack.ID]int{}
	chosen := b.chosen(groups)
	for _, g := range chosen {
		for id := range packs.of(g) {
			users[id]++
		}
	}
	slices.SortStableFunc(chosen, func(x, y *group) int { return cmp.Compare(x.gain, y.gain) })
	saved := int64(0)
	for _, g := range chosen {
		alone := int64(0)
		for id := range packs.of(g) {
			if users[id] == 1 {
				alone += packs.sizes[id]
			}
		}
		if g.gain < alone/part {
			b.set(g, false)
			for id := range packs.of(g) {
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
		byRoot[b.group(u.of)].after += int64(u.stored) + int64(writer.DictWeight(u.Dict)) + blockWeight
	}
	for _, g := range b.chosen(groups) {
		// Demand a margin, since writing has a cost, too.
		g.gain = g.weight + g.before - g.after
		b.set(g, !l.damaged[g.root] && g.gain > max(g.after-g.before, 0)/8+g.after/32)
	}
	// Planned blocks may be much larger than the small deltas that they replace.
	packs, more := b.packs(), int64(0)
	for _, g := range b.chosen(groups) {
		grows := max(g.after-g.before, 0)
		if packs.bytes+packs.more(g)+more+grows > budget {
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
	if !b.worth(groups, part) {
		return false
	}
	for _, g := range b.chosen(groups) {
		l.Cost += g.after - g.before
	}
	return true
}
