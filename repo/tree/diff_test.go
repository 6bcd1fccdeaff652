package tree

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"pgregory.net/rapid"
)

// TestDiffModel compares Diff with maps.
func TestDiffModel(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfN(rapid.Custom(genEntry), 0, 30)
		base := gen.Draw(t, "both")
		a := sorted(append(slices.Clone(base), gen.Draw(t, "a")...))
		b := sorted(append(slices.Clone(base), gen.Draw(t, "b")...))
		want := map[Key][2]*Entry{}
		for i := range a {
			want[a[i].Key()] = [2]*Entry{&a[i], nil}
		}
		for i := range b {
			pair := want[b[i].Key()]
			if pair[0] != nil && reflect.DeepEqual(*pair[0], b[i]) {
				delete(want, b[i].Key())
				continue
			}
			want[b[i].Key()] = [2]*Entry{pair[0], &b[i]}
		}
		s := store{}
		var keys []Key
		err := Diff(ctx, s.load, build(t, s, a), build(t, s, b), func(x, y *Entry) error {
			e := x
			if e == nil {
				e = y
			}
			pair, ok := want[e.Key()]
			if !ok || !reflect.DeepEqual(pair, [2]*Entry{x, y}) {
				t.Fatalf("fn was called with %+v and %+v", x, y)
			}
			keys = append(keys, e.Key())
			return nil
		})
		if err != nil || len(keys) != len(want) || !slices.IsSortedFunc(keys, Key.Compare) {
			t.Fatalf("fn was called %d times, want %d: %v", len(keys), len(slices.Collect(maps.Keys(want))), err)
		}
	})
}

func TestDiffLoadsOnlyDifferences(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := store{}
	entries := many(50_000)
	a := build(t, s, entries)
	entries[25_000].Content.IDs = []chunk.ID{testID(-1)}
	entries = slices.Delete(entries, 100, 101)
	b := build(t, s, entries)
	loads, calls := 0, 0
	load := func(ctx context.Context, id chunk.ID) ([]byte, error) { loads++; return s.load(ctx, id) }
	if err := Diff(ctx, load, a, b, func(_, _ *Entry) error { calls++; return nil }); err != nil {
		t.Fatal(err)
	}
	if calls != 2 || loads > 40 {
		t.Errorf("%d differences, %d of %d nodes loaded", calls, loads, len(s))
	}
}
