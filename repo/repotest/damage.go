package repotest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// DamageSeed makes damage repeatable.
const DamageSeed = 20260101

// Damages returns damaged versions of a file. The keys describe the damage.
func Damages(rng *rand.Rand, b []byte) map[string][]byte {
	out := map[string][]byte{"emptied": {}, "a byte longer": append(bytes.Clone(b), 0), "a byte shorter": b[:len(b)-1]}
	cut := rng.IntN(len(b))
	out[fmt.Sprintf("cut at %d", cut)] = b[:cut]
	flips := 3
	switch {
	case faultpoint.All():
		flips = 5
	case testing.Short():
		flips = 1
	}
	for range flips {
		bit := rng.IntN(8 * len(b))
		flipped := bytes.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		out[fmt.Sprintf("bit %d flipped", bit)] = flipped
	}
	// More than snap corrects by itself.
	at := rng.IntN(len(b))
	overwritten := bytes.Clone(b)
	for i := at; i < min(at+16, len(b)); i++ {
		overwritten[i] ^= byte(1 + rng.IntN(255))
	}
	out[fmt.Sprintf("16 bytes overwritten at %d", at)] = overwritten
	return out
}

// NewDamaged returns a repository with two damaged bits in some of its packs. It
// also returns the files that are lost, by day.
func NewDamaged(t testing.TB, days ...int) (be *memory.Backend, lost map[int][]string) {
	t.Helper()
	be = New(t, days...)
	x := MustOpen(t, be).Index()
	n := 0
	for _, p := range x.Packs() {
		if p.Kind != pack.Content || len(p.Blocks) < 2 {
			continue
		}
		if n++; n%2 == 0 {
			continue
		}
		_, b := x.Block(p.Blocks[0])
		Flip(t, be, PackName(p.ID), int(b.Offset)+20)
	}
	return be, LostFiles(t, be)
}

// LostFiles returns the files that cannot be restored, by day.
func LostFiles(t testing.TB, be backend.Backend) map[int][]string {
	t.Helper()
	rep, err := MustOpen(t, be).Check(context.Background(), repo.CheckOptions{ReadData: 1})
	if err != nil {
		t.Fatal(err)
	}
	lost := map[int][]string{}
	for _, s := range rep.Affected {
		lost[s.Time.Day()] = s.Names
	}
	return lost
}

// EveryRepair makes a repair fail, and kills it, at each step. The next repair must
// complete it.
func EveryRepair(t *testing.T, base *memory.Backend, least int, repair func(backend.Backend) error, judge func(*memory.Backend) error) {
	t.Helper()
	again := func(be *memory.Backend) error {
		if err := repair(be); err != nil {
			return fmt.Errorf("next run: %w", err)
		}
		return judge(be)
	}
	EveryFault(t, Run{Base: base, Do: repair, Least: least, Want: 4}, func(be *memory.Backend, _ error) error { return again(be) })
	EveryCrash(t, Run{Base: base, Do: repair, Least: 2, Want: 4}, again)
}
