package check

import (
	"cmp"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

// plan says in which order a check decodes blocks that are dictionaries or have
// one. Blocks that need each other, directly or through others, are a family;
// one goroutine goes through it, every block after those that it needs and
// near to them, so that most blocks are decoded once and families of any size
// take little memory. Other blocks are verified where the pack is read.
type plan struct {
	x        *index.Index
	needs    edges   // from a block to those in its dictionary
	users    edges   // the other way
	left     []int32 // users of a block that have not been verified
	families [][]index.BlockRef
	stored   []int64 // sealed bytes of blocks in families, by pack as given
}

// edges are pairs of blocks in the order of the first.
type edges []edge

type edge struct{ from, to index.BlockRef }

// of returns the edges from a block.
func (e edges) of(ref index.BlockRef) edges {
	i, _ := slices.BinarySearchFunc(e, ref, func(e edge, r index.BlockRef) int { return cmp.Compare(e.from, r) })
	n := i
	for n < len(e) && e[n].from == ref {
		n++
	}
	return e[i:n]
}

func (e edges) sort() {
	slices.SortFunc(e, func(a, b edge) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
}

// newPlan makes the plan for verifying some packs. What their blocks need from
// other packs is decoded, but not verified.
func newPlan(x *index.Index, packs []index.Pack) *plan {
	blocks := 0
	for _, p := range x.Packs() {
		blocks += len(p.Blocks)
	}
	p := &plan{x: x, left: make([]int32, blocks)}
	chosen, has := make([]bool, blocks), make([]bool, blocks)
	for _, pk := range packs {
		for _, ref := range pk.Blocks {
			chosen[ref] = true
		}
	}
	for _, pk := range packs {
		for _, ref := range pk.Blocks {
			_, dict := x.Dependencies(ref)
			has[ref] = has[ref] || len(dict) > 0
			for _, id := range dict {
				if loc, ok := x.Lookup(id); ok && chosen[loc.Block] && (len(p.needs) == 0 || p.needs[len(p.needs)-1] != edge{ref, loc.Block}) {
					p.needs = append(p.needs, edge{ref, loc.Block})
				}
			}
		}
	}
	p.needs.sort()
	p.needs = slices.Compact(p.needs)
	p.users = make(edges, len(p.needs))
	for i, e := range p.needs {
		p.users[i] = edge{e.to, e.from}
		p.left[e.to]++
		has[e.to] = true
	}
	p.users.sort()
	p.stored = make([]int64, len(packs))
	placed := make([]bool, blocks)
	for i, pk := range packs {
		for _, ref := range pk.Blocks {
			if !has[ref] {
				continue
			}
			n, _ := x.Dependencies(ref)
			p.stored[i] += int64(n)
			if !placed[ref] {
				p.families = append(p.families, p.family(ref, placed))
			}
		}
	}
	// The longest come first, so that no goroutine is left alone with one.
	slices.SortStableFunc(p.families, func(a, b []index.BlockRef) int { return cmp.Compare(len(b), len(a)) })
	return p
}

// family returns all blocks that are connected with one, in order.
func (p *plan) family(first index.BlockRef, placed []bool) (order []index.BlockRef) {
	stack := []index.BlockRef{first}
	var place func(ref index.BlockRef, above int)
	place = func(ref index.BlockRef, above int) {
		if placed[ref] {
			return
		}
		placed[ref] = true // before what it needs, which may lead back here
		for _, e := range p.needs.of(ref) {
			// Deeper than that nothing can be decoded anyway.
			if above < pack.MaxDepth {
				place(e.to, above+1)
			} else {
				stack = append(stack, e.to)
			}
		}
		order = append(order, ref)
		for _, e := range slices.Backward(p.users.of(ref)) {
			stack = append(stack, e.to)
		}
	}
	for len(stack) > 0 {
		ref := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		place(ref, 0)
	}
	return order
}

// inFamily reports whether a block is verified with its family.
func (p *plan) inFamily(ref index.BlockRef) bool {
	_, dict := p.x.Dependencies(ref)
	return len(dict) > 0 || len(p.users.of(ref)) > 0
}

// verified notes that a block needs those of its dictionary no more, and calls
// last for each that nobody else needs.
func (p *plan) verified(ref index.BlockRef, last func(index.BlockRef)) {
	for _, e := range p.needs.of(ref) {
		if p.left[e.to]--; p.left[e.to] == 0 {
			last(e.to)
		}
	}
}
