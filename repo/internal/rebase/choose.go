package rebase

import (
	"cmp"
	"maps"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/writer"
)

// group is blocks that hang together: leftovers, and what leans on them.
type group struct {
	root       index.BlockRef
	weight     int64 // of leftovers, in bytes
	before     int64 // of what is in use of the leaners
	plain      int64 // its plaintext
	after      int64 // of what is to come in the place of leaners
	gain       int64 // what that saves
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

// packsOf counts what has to be written anew for groups.
type packsOf struct {
	x     *index.Index
	sizes map[pack.ID]int64
	in    map[pack.ID]bool
	bytes int64
}

func (b *rebaser) packs() *packsOf {
	p := &packsOf{x: b.x, sizes: map[pack.ID]int64{}, in: map[pack.ID]bool{}}
	for _, pk := range b.x.Packs() {
		if slices.ContainsFunc(pk.Blocks, b.u.Live) { // others go without being written
			p.sizes[pk.ID] = pk.Size
		}
	}
	return p
}

// more returns the bytes of the packs that a group adds.
func (p *packsOf) more(g *group) (n int64) {
	for id := range p.of(g) {
		if !p.in[id] {
			n += p.sizes[id]
		}
	}
	return n
}

func (p *packsOf) add(g *group) {
	p.bytes += p.more(g)
	maps.Copy(p.in, p.of(g))
}

func (p *packsOf) of(g *group) map[pack.ID]bool {
	in := map[pack.ID]bool{}
	for _, ref := range g.dependents {
		id, _ := p.x.Block(ref)
		in[id] = true
	}
	return in
}

// within chooses the groups that may be tried, before anything is read to do
// so. It returns the bytes of plaintext that this takes.
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

// promising leaves the groups chosen that may come to take less, as far as that can
// be told without encoding: what has a predecessor will take what it takes now, and
// the rest what it would take in full. It returns the bytes of plaintext to try, or 0
// if all of them together do not promise enough.
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

// worth reports whether the groups that are chosen save one part in so many of what
// has to be written anew for them. Those that do not, for what is written for them
// alone, are chosen no longer.
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

// chosen returns the groups that are chosen so far.
func (b *rebaser) chosen(groups []*group) []*group {
	return slices.DeleteFunc(slices.Clone(groups), func(g *group) bool {
		return len(g.dependents) == 0 || !b.dependents[g.dependents[0]].chosen
	})
}

// choose picks the groups of which the leftovers, and the small blocks above them,
// take more than what is to come in their place. It reports whether that is worth
// the writing; thorough takes nearly whatever saves something.
func (b *rebaser) choose(groups []*group, l *Plan, budget int64, thorough bool) bool {
	byRoot := map[index.BlockRef]*group{}
	for _, g := range groups {
		byRoot[g.root] = g
	}
	for _, u := range l.Blocks {
		byRoot[b.group(u.of)].after += int64(u.stored) + int64(writer.DictWeight(u.Dict)) + blockWeight
	}
	for _, g := range b.chosen(groups) {
		// Writing costs something, too, and leftovers may be a few bytes.
		g.gain = g.weight + g.before - g.after
		b.set(g, !l.damaged[g.root] && g.gain > max(g.after-g.before, 0)/8+g.after/32)
	}
	// What comes in the place of small differences may be much more than they were.
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
