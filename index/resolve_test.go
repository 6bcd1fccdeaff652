package index

import (
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// Index files can list anything. A chunk that needs itself, or whose block is deeper
// than a reader follows, counts as unknown until it is stored again, whatever the order
// of packs.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	in := func(ids ...uint32) (out []chunk.ID) {
		for _, n := range ids {
			out = append(out, id(n))
		}
		return out
	}
	full := func(ids ...uint32) pack.Header { return oneBlock(nil, in(ids...)...) }
	delta := func(n uint32, dict ...uint32) pack.Header { return oneBlock(in(dict...), id(n)) }
	join := func(packs ...pack.Header) (h pack.Header) {
		for _, p := range packs {
			h.Blocks = append(h.Blocks, p.Blocks...)
		}
		return h
	}
	chain := func(from, to uint32) (packs []pack.Header) {
		for n := from; n <= to; n++ {
			packs = append(packs, delta(n, n-1))
		}
		return packs
	}
	for _, test := range []struct {
		name        string
		packs       []pack.Header
		known, lost []uint32
	}{
		{"itself", []pack.Header{delta(1, 1)}, nil, []uint32{1}},
		{"itself and another", []pack.Header{full(1), delta(2, 1, 2)}, []uint32{1}, []uint32{2}},
		{"its block", []pack.Header{oneBlock(in(2), in(1, 2)...)}, nil, []uint32{1, 2}},
		{"itself, and a good copy", []pack.Header{delta(1, 1), full(1), delta(2, 1)}, []uint32{1, 2}, nil},
		{"two", []pack.Header{delta(1, 2), delta(2, 1), full(3)}, []uint32{3}, []uint32{1, 2}},
		{"two in one pack", []pack.Header{join(delta(1, 2), delta(2, 1), full(3))}, []uint32{3}, []uint32{1, 2}},
		{"two, and a good copy", []pack.Header{delta(1, 2), delta(2, 1), full(2)}, []uint32{1, 2}, nil},
		{"three, and one that needs them", []pack.Header{delta(1, 2), delta(2, 3), delta(3, 4, 1), full(4), delta(5, 1)}, []uint32{4}, []uint32{1, 2, 3, 5}},
		{"copies that need each other", []pack.Header{delta(1, 2), delta(2, 1), delta(1, 2), delta(2, 1)}, nil, []uint32{1, 2}},
		{"as deep as allowed", append(chain(1, pack.MaxDepth), full(0)), []uint32{0, 1, pack.MaxDepth}, nil},
		{"too deep", append(chain(1, pack.MaxDepth+2), full(0)), []uint32{0, pack.MaxDepth}, []uint32{pack.MaxDepth + 1, pack.MaxDepth + 2}},
		{"too deep, and a good copy", append(chain(1, pack.MaxDepth+2), full(0, 2)), []uint32{pack.MaxDepth, pack.MaxDepth + 2}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 {
				slices.Reverse(test.packs)
				x := New()
				for i, h := range test.packs {
					x.Add(packID(uint32(i)), 200, h)
				}
				x.Compact()
				for _, n := range append(test.known, test.lost...) {
					want := slices.Contains(test.known, n)
					if _, found := x.Lookup(id(n)); found != want || x.Has(id(n)) != want || x.Reusable(id(n)) != want {
						t.Errorf("chunk %d: Lookup %v, Has %v, Reusable %v", n, found, x.Has(id(n)), x.Reusable(id(n)))
					}
				}
				x.Add(packID(99), 200, full(test.lost...))
				for range 2 {
					for _, n := range test.lost {
						if !x.Reusable(id(n)) {
							t.Errorf("chunk %d was stored again but is not reusable", n)
						}
					}
					x.Compact()
				}
			}
		})
	}
}
