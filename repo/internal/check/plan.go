package check

import (
	"cmp"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

// plan is the order in which a check verifies blocks that have a dictionary, and
// blocks that hold bases. Blocks that are connected by dictionaries, directly or
// through other blocks, form a family. One goroutine verifies a family, each block
// soon after the blocks that it needs, so that most blocks are decoded once and large
// families take little memory. Other blocks are verified when their pack is read.
type plan struct {
	x        *index.Index
	needs    edges   // from a block to the blocks of its bases
	users    edges   // from a block to the blocks that need it
	left     []int32 // for each block, how many of its users were not verified yet
	families [][]index.BlockRef
	stored   []int64 // for each pack, the sealed bytes of its blocks in families
}

// edges are sorted by their first block.
type edges []edge

type edge struct{ from, to index.BlockRef }

// startingAt returns the edges that start at a block.
func (e edges) startingAt(ref index.BlockRef) edges {
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

// newPlan makes the plan for verifying some packs. Bases in other packs are decoded,
// but not verified.
func newPlan(x *index.Index, packs []index.Pack) *plan {
	blocks := 0
	for _, p := range x.Packs() {
		blocks += len(p.Blocks)
	}
	p := &plan{x: x, left: make([]int32, blocks)}
	chosen, connected := make([]bool, blocks), make([]bool, blocks)
	for _, pk := range packs {
		for _, ref := range pk.Blocks {
			chosen[ref] = true
		}
	}
	for _, pk := range packs {
		for _, ref := range pk.Blocks {
			_, dict := x.Dependencies(ref)
			connected[ref] = connected[ref] || len(dict) > 0
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
		connected[e.to] = true
	}
	p.users.sort()
	p.stored = make([]int64, len(packs))
	visited := make([]bool, blocks)
	for i, pk := range packs {
		for _, ref := range pk.Blocks {
			if !connected[ref] {
				continue
			}
			n, _ := x.Dependencies(ref)
			p.stored[i] += int64(n)
			if !visited[ref] {
				p.families = append(p.families, p.findFamily(ref, visited))
			}
		}
	}
	// Start with the longest families, so that no goroutine runs on alone at the end.
	slices.SortStableFunc(p.families, func(a, b []index.BlockRef) int { return cmp.Compare(len(b), len(a)) })
	return p
}

// findFamily returns all blocks that are connected with first, in the order in which to
// verify them.
func (p *plan) findFamily(first index.BlockRef, visited []bool) (order []index.BlockRef) {
	stack := []index.BlockRef{first}
	var visit func(ref index.BlockRef, above int)
	visit = func(ref index.BlockRef, above int) {
		if visited[ref] {
			return
		}
		visited[ref] = true // before the loop: damaged blocks may need each other
		for _, e := range p.needs.startingAt(ref) {
			// A deeper chain cannot be decoded, whatever the order.
			if above < pack.MaxDepth {
				visit(e.to, above+1)
			} else {
				stack = append(stack, e.to)
			}
		}
		order = append(order, ref)
		for _, e := range slices.Backward(p.users.startingAt(ref)) {
			stack = append(stack, e.to)
		}
	}
	for len(stack) > 0 {
		ref := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		visit(ref, 0)
	}
	return order
}

// inFamily reports whether a block is verified with its family.
func (p *plan) inFamily(ref index.BlockRef) bool {
	_, dict := p.x.Dependencies(ref)
	return len(dict) > 0 || len(p.users.startingAt(ref)) > 0
}

// markVerified notes that a block was verified. It calls last for each block that no
// other block needs any more.
func (p *plan) markVerified(ref index.BlockRef, last func(index.BlockRef)) {
	for _, e := range p.needs.startingAt(ref) {
		if p.left[e.to]--; p.left[e.to] == 0 {
			last(e.to)
		}
	}
}
