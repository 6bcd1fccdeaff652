package parity

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// Key slots and copies of config are healed like other files. Missing ones were removed,
// unless there is no key at all.
func TestHealKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := withConfig(t)
	keys := store(t, base, keyKind, 1, 700, 1300, 900)
	copied := store(t, base, 3, 2, 235)
	store(t, base, 0, 3, 5000)
	if _, err := Refresh(ctx, base, RefreshOptions{Percent: 5_00}); err != nil {
		t.Fatal(err)
	}
	want := content(t, base, "")
	damage := func(be *memory.Backend, name string) {
		if err := be.Set(name, want[name][:100]); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(be *memory.Backend, names ...string) {
		for _, name := range names {
			if err := be.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		spoil  func(be *memory.Backend)
		healed []string // by HealKeys
	}{
		"nothing":              {func(*memory.Backend) {}, nil},
		"one damaged":          {func(be *memory.Backend) { damage(be, keys[0]) }, keys[:1]},
		"two damaged":          {func(be *memory.Backend) { damage(be, keys[0]); damage(be, keys[2]) }, []string{keys[0], keys[2]}},
		"three damaged":        {func(be *memory.Backend) { damage(be, keys[0]); damage(be, keys[1]); damage(be, keys[2]) }, nil},
		"one removed":          {func(be *memory.Backend) { remove(be, keys[1]) }, nil},
		"removed, rest broken": {func(be *memory.Backend) { remove(be, keys[1]); damage(be, keys[0]) }, keys[:1]},
		"all gone":             {func(be *memory.Backend) { remove(be, keys...) }, nil},
	} {
		for _, dryRun := range []bool{true, false} {
			be := base.Clone()
			tt.spoil(be)
			before := content(t, be, "")
			healed, err := HealKeys(ctx, be, dryRun)
			slices.Sort(healed)
			if expected := slices.Sorted(slices.Values(tt.healed)); err != nil || !slices.Equal(healed, expected) {
				t.Errorf("%s: healed %v, want %v, %v", name, healed, expected, err)
			}
			after := content(t, be, "")
			if dryRun {
				if !maps.EqualFunc(before, after, bytes.Equal) {
					t.Errorf("%s: a dry run has changed something", name)
				}
				continue
			}
			for _, name := range healed {
				if !bytes.Equal(after[name], want[name]) {
					t.Errorf("%s was not healed", name)
				}
			}
		}
	}
	// Two keys are lost, and there is no other: both come back.
	pair := withConfig(t)
	two := store(t, pair, keyKind, 1, 700, 1300)
	if _, err := Refresh(ctx, pair, RefreshOptions{Percent: 5_00}); err != nil {
		t.Fatal(err)
	}
	all := content(t, pair, "")
	remove(pair, two...)
	if healed, err := HealKeys(ctx, pair, false); err != nil || len(healed) != 2 || !maps.EqualFunc(all, content(t, pair, ""), bytes.Equal) {
		t.Errorf("%v, %v", healed, err)
	}
	// A copy of config is healed with everything else.
	be := base.Clone()
	damage(be, copied[0])
	if rep, err := Heal(ctx, be, HealOptions{}); err != nil || !slices.Equal(rep.Healed, copied) {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A damaged file of the ledger is healed. A missing one was merged.
func TestHealLedger(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	files := store(t, be, 4, 1, 700, 1300, 900)
	if _, err := Refresh(ctx, be, RefreshOptions{Percent: 5_00}); err != nil {
		t.Fatal(err)
	}
	want := content(t, be, "")
	if err := be.Set(files[0], []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if err := be.Delete(ctx, files[1]); err != nil {
		t.Fatal(err)
	}
	if rep, err := Heal(ctx, be, HealOptions{}); err != nil || !slices.Equal(rep.Healed, files[:1]) {
		t.Errorf("%+v, %v", rep, err)
	}
	delete(want, files[1])
	if !maps.EqualFunc(want, content(t, be, ""), bytes.Equal) {
		t.Error("the files are not as they were")
	}
}

// Nothing can restore a key that was removed: not even from the other files of its group.
func TestForget(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := withConfig(t)
	keys := store(t, be, keyKind, 1, 700, 1300)
	store(t, be, 0, 3, 5000)
	if _, err := Refresh(ctx, be, RefreshOptions{Percent: 5_00}); err != nil {
		t.Fatal(err)
	}
	groups := len(content(t, be, Dir))
	if err := Forget(ctx, be, keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := be.Delete(ctx, keys[0]); err != nil {
		t.Fatal(err)
	}
	if left := len(content(t, be, Dir)); left != groups-1 {
		t.Errorf("%d of %d groups are left", left, groups)
	}
	if err := be.Set(keys[1], []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if healed, err := HealKeys(ctx, be, false); err != nil || len(healed) > 0 {
		t.Errorf("%v, %v", healed, err)
	}
}
