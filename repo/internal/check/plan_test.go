package check

import (
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"pgregory.net/rapid"
)

// TestPlan makes repositories of blocks that need each other at random. Every
// chosen block that has a dictionary or holds bases must be in exactly one family,
// with all chosen blocks that it needs. Unless there are cycles, it comes after these
// blocks. A block must be released with its last user, and not before.
func TestPlan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "blocks")
		circles := rapid.Bool().Draw(t, "circles")
		x := index.New()
		var packs []index.Pack
		for i := 0; i < n; {
			var h pack.Header
			for range min(n-i, rapid.IntRange(1, 8).Draw(t, "in pack")) {
				b := pack.Block{Chunks: []pack.Chunk{{ID: chunk.ID{byte(i)}, Length: 1}}}
				most := i - 1
				if circles {
					most = n // chunk n is in no block
				}
				for range rapid.IntRange(0, min(3, most+1)).Draw(t, "dictionary") {
					b.Encoding = pack.Delta
					b.Dict = append(b.Dict, chunk.ID{byte(rapid.IntRange(0, most).Draw(t, "base"))})
				}
				h.Blocks = append(h.Blocks, b)
				i++
			}
			id := pack.ID{byte(len(packs))}
			x.Add(id, 100, h)
			p, _ := x.Pack(id)
			packs = append(packs, p)
		}
		chosen := map[index.BlockRef]bool{}
		var some []index.Pack
		for _, p := range packs {
			if rapid.Bool().Draw(t, "chosen") {
				some = append(some, p)
				for _, ref := range p.Blocks {
					chosen[ref] = true
				}
			}
		}
		p := newPlan(x, some)
		place, family := map[index.BlockRef]int{}, map[index.BlockRef]int{}
		for f, refs := range p.families {
			for _, ref := range refs {
				if _, twice := place[ref]; twice || !chosen[ref] || !p.inFamily(ref) {
					t.Fatalf("block %d: twice %v, chosen %v, in a family %v", ref, twice, chosen[ref], p.inFamily(ref))
				}
				place[ref], family[ref] = len(place), f
			}
		}
		users := map[index.BlockRef]int{}
		for ref := range chosen {
			if _, ok := place[ref]; ok != p.inFamily(ref) {
				t.Fatalf("block %d: placed %v, in a family %v", ref, ok, !ok)
			}
			_, dict := x.Dependencies(ref)
			seen := map[index.BlockRef]bool{}
			for _, id := range dict {
				loc, ok := x.Lookup(id)
				if !ok || !chosen[loc.Block] || seen[loc.Block] {
					continue
				}
				seen[loc.Block] = true
				users[loc.Block]++
				if family[loc.Block] != family[ref] {
					t.Fatalf("block %d and %d, which it needs, are in two families", ref, loc.Block)
				}
				// Chains that are too long to be decoded have no order.
				if !circles && n <= pack.MaxDepth && place[loc.Block] > place[ref] {
					t.Fatalf("block %d comes before %d, which it needs", ref, loc.Block)
				}
			}
		}
		for _, refs := range p.families {
			for _, ref := range refs {
				p.markVerified(ref, func(base index.BlockRef) { users[base] = -users[base] })
			}
		}
		for ref, n := range users {
			if n > 0 || p.left[ref] != 0 {
				t.Fatalf("block %d with %d users: %d left", ref, n, p.left[ref])
			}
		}
	})
}
