package prune

import (
	"testing"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/store"
)

// TestChooseRepacksRebasedFirst checks that choose repacks first the packs with blocks to
// rebase, as a prune does, and other packs only if more bytes than allowed are still
// unused after that.
func TestChooseRepacksRebasedFirst(t *testing.T) {
	t.Parallel()
	some := func(id byte, used int64, rebased bool) wasted {
		return wasted{pack: index.Pack{ID: pack.ID{id}, Size: 1000}, used: used, rebased: rebased}
	}
	for name, c := range map[string]struct {
		partly []wasted
		packs  []byte
		free   int64
	}{
		"rebasing is enough":     {[]wasted{some(1, 800, false), some(2, 850, true), some(3, 850, true)}, []byte{2, 3}, 300},
		"rebasing is not enough": {[]wasted{some(1, 600, false), some(2, 800, false), some(3, 990, true)}, []byte{3, 1}, 410},
		"nothing is rebased":     {[]wasted{some(1, 800, false), some(2, 850, false), some(3, 850, false)}, []byte{1, 2}, 350},
	} {
		p := &pruner{r: &store.Store{}, opts: Options{MaxUnused: func(int64) int64 { return 200 }, MaxRepack: -1}}
		chosen := p.choose(c.partly, 0)
		var got []byte
		for _, pk := range chosen.packs {
			got = append(got, pk.ID[0])
		}
		if string(got) != string(c.packs) || chosen.waste != c.free {
			t.Errorf("%s: packs %v, %d bytes free; want %v, %d", name, got, chosen.waste, c.packs, c.free)
		}
	}
}
