package prune_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// A prune removes no data with which parity could heal a damaged pack.
func TestPruneKeepsDataForParity(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(60))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.RefreshParity(ctx, 500, nil); err != nil {
		t.Fatal(err)
	}
	opts := repo.PruneOptions{MaxUnused: func(int64) int64 { return 1 << 40 }}
	pruned := be.Clone()
	if _, err := repotest.Prune(ctx, pruned, opts, 1, 2); err != nil {
		t.Fatal(err)
	}
	left := repotest.Content(t, pruned)
	victim := ""
	for name, b := range repotest.Content(t, be) {
		if left[name] != nil && strings.HasPrefix(name, repotest.PacksDir) && (victim == "" || len(b) > len(left[victim])) {
			victim = name
		}
	}
	b := slices.Clone(left[victim])
	b[len(b)/2] ^= 1
	if err := be.Set(victim, b); err != nil {
		t.Fatal(err)
	}
	rep, err := repotest.Prune(ctx, be, opts, 1, 2)
	var d *repo.DamageError
	if !errors.Is(err, repo.ErrDamaged) || !errors.As(err, &d) || d.File != victim || !strings.Contains(err.Error(), "snap repair") || rep.RemovedPacks > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	healFromParity(t, be)
	if err := repotest.Verify(be, 3); err != nil {
		t.Error("healed:", err)
	}
	if rep, err := repotest.Prune(ctx, be, opts); err != nil || rep.RemovedPacks == 0 {
		t.Errorf("after healing: %+v, %v", rep, err)
	}
	if err := repotest.Verify(be, 3); err != nil {
		t.Error("pruned:", err)
	}
}

func healFromParity(t *testing.T, be *memory.Backend) {
	t.Helper()
	ctx := context.Background()
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(61))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, repo.LockExclusive, "repair")
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := r.HealFromParity(ctx, repo.RepairOptions{}); err != nil || len(rep.Healed) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

// If a pack whose blocks could be copied unchanged does not match its name, the
// prune stops at the damaged block and does not remove the pack.
func TestPruneStopsAtDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3, 4, 5)
	if err := repotest.Forget(ctx, be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	var packs []string
	for name := range repotest.Content(t, be) {
		if strings.HasPrefix(name, repotest.PacksDir) {
			packs = append(packs, name)
		}
	}
	stopped := 0
	for _, name := range packs {
		damaged := be.Clone()
		repotest.Flip(t, damaged, name, len(repotest.Content(t, be)[name])/3)
		before := repotest.Content(t, damaged)
		_, err := repotest.Prune(ctx, damaged, repotest.NoWaste)
		left := repotest.Content(t, damaged)[name]
		if left == nil && err == nil {
			// The pack was removed: nothing in it was in use.
			if err := repotest.Verify(damaged, 4, 5); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil && !errors.Is(err, repo.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			stopped++
		}
		if !slices.Equal(left, before[name]) {
			t.Errorf("%s was damaged, and the prune removed it", name)
		}
	}
	if stopped == 0 {
		t.Error("no prune stopped at the damage")
	}
}

// If the index contradicts the header of a pack whose blocks could be copied
// unchanged, the prune fails or succeeds, and nothing is lost.
func TestPruneWithAWrongIndex(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3, 4, 5)
	if err := repotest.Forget(context.Background(), base, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(b *pack.Block){
		"a block beyond the end of the pack": func(b *pack.Block) { b.Stored += 1 << 20 },
		"a wrong chunk length":               func(b *pack.Block) { b.Chunks[0].Length++ },
	} {
		noticed := 0
		packs := len(repotest.FilesIn(t, base, repotest.PacksDir))
		for _, n := range faultpoint.Choose(t, packs, 20) {
			be, at := base.Clone(), 0
			repotest.ReplaceIndex(t, be, func(h *pack.Header) {
				if last := &h.Blocks[len(h.Blocks)-1]; at == n && h.Kind == pack.Content && last.Encoding != pack.Raw {
					lie(last)
				}
				at++
			})
			_, err := repotest.Prune(context.Background(), be, repotest.NoWaste)
			if err != nil && !errors.Is(err, repo.ErrDamaged) {
				t.Fatalf("%s of pack %d: %v", name, n, err)
			}
			if err != nil {
				noticed++
			}
			if err := repotest.RepairIndex(be); err != nil {
				t.Fatalf("%s of pack %d: %v", name, n, err)
			}
			if err := repotest.Verify(be, 4, 5); err != nil {
				t.Errorf("%s of pack %d: %v", name, n, err)
			}
		}
		if noticed == 0 && faultpoint.All() {
			t.Errorf("%s: no prune noticed it", name)
		}
	}
}
