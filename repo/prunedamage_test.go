package repo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// A prune removes nothing while parity could heal a damaged pack with it.
func TestPruneKeepsWhatParityHeals(t *testing.T) {
	ctx := context.Background()
	be := chainRepo(t, 1, 2, 3)
	r, err := openWith(ctx, be, testSecret, tinyOptions(60))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.RefreshParity(ctx, 500, nil); err != nil {
		t.Fatal(err)
	}
	opts := PruneOptions{MaxUnused: func(int64) int64 { return 1 << 40 }}
	pruned := be.Clone()
	if _, err := pruneTiny(ctx, pruned, opts, 1, 2); err != nil {
		t.Fatal(err)
	}
	left := content(t, pruned)
	victim := ""
	for name, b := range content(t, be) {
		if left[name] != nil && strings.HasPrefix(name, packsDir) && (victim == "" || len(b) > len(left[victim])) {
			victim = name
		}
	}
	b := slices.Clone(left[victim])
	b[len(b)/2] ^= 1
	if err := be.Set(victim, b); err != nil {
		t.Fatal(err)
	}
	rep, err := pruneTiny(ctx, be, opts, 1, 2)
	var d *DamageError
	if !errors.Is(err, ErrDamaged) || !errors.As(err, &d) || d.File != victim || !strings.Contains(err.Error(), "snap repair") || rep.RemovedPacks > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	healParityTiny(t, be)
	if err := judgeClean(be, testSecret, 3); err != nil {
		t.Error("healed:", err)
	}
	if rep, err := pruneTiny(ctx, be, opts); err != nil || rep.RemovedPacks == 0 {
		t.Errorf("after healing: %+v, %v", rep, err)
	}
	if err := judgeClean(be, testSecret, 3); err != nil {
		t.Error("pruned:", err)
	}
}

func healParityTiny(t *testing.T, be *memory.Backend) {
	t.Helper()
	ctx := context.Background()
	r, err := openWith(ctx, be, testSecret, tinyOptions(61))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, LockExclusive, "repair")
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := r.HealFromParity(ctx, RepairOptions{}); err != nil || len(rep.Healed) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

// A pack that is copied as it is has to be what its name says. In one that is not, the
// prune stops at the block that is damaged, and removes nothing of it.
func TestPruneCopiesNoDamage(t *testing.T) {
	ctx := context.Background()
	be := chainRepo(t, 1, 2, 3, 4, 5)
	if err := forgetTiny(ctx, be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	var packs []string
	for name := range content(t, be) {
		if strings.HasPrefix(name, packsDir) {
			packs = append(packs, name)
		}
	}
	stopped := 0
	for _, name := range packs {
		damaged := be.Clone()
		flipBit(t, damaged, name, len(content(t, be)[name])/3)
		before := content(t, damaged)
		_, err := pruneTiny(ctx, damaged, everything)
		left := content(t, damaged)[name]
		if left == nil && err == nil {
			// It went: nothing in it was in use.
			if err := judgeClean(damaged, testSecret, 4, 5); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			stopped++
		}
		if !slices.Equal(left, before[name]) {
			t.Errorf("%s was damaged, and is gone", name)
		}
	}
	if stopped == 0 {
		t.Error("no damage was met")
	}
}

// What the index says of a pack that is copied as it is has to be what the pack says.
func TestPruneCopiesNoLies(t *testing.T) {
	base := chainRepo(t, 1, 2, 3, 4, 5)
	if err := forgetTiny(context.Background(), base, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(b *pack.Block){
		"a block behind the end":   func(b *pack.Block) { b.Stored += 1 << 20 },
		"another length of chunks": func(b *pack.Block) { b.Chunks[0].Length++ },
	} {
		noticed := 0
		for n := range filesIn(t, base, packsDir) {
			be, at := base.Clone(), 0
			lyingIndex(t, be, func(h *pack.Header) {
				if last := &h.Blocks[len(h.Blocks)-1]; at == n && h.Kind == pack.Content && last.Encoding != pack.Raw {
					lie(last)
				}
				at++
			})
			_, err := pruneTiny(context.Background(), be, everything)
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s of pack %d: %v", name, n, err)
			}
			if err != nil {
				noticed++
			}
			if err := repairIndex(be); err != nil {
				t.Fatalf("%s of pack %d: %v", name, n, err)
			}
			if err := judgeClean(be, testSecret, 4, 5); err != nil {
				t.Errorf("%s of pack %d: %v", name, n, err)
			}
		}
		if noticed == 0 {
			t.Errorf("%s: it was never noticed", name)
		}
	}
}
