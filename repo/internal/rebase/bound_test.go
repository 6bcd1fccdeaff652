package rebase_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/repotest"
)

// MaxRepack also bounds the bytes that deltas take when they are stored without
// their bases.
func TestRebaseStaysWithinTheBound(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t)
	first, second := repotest.Files{}, repotest.Files{}
	for i := range 12 {
		name, b := fmt.Sprint("file", i), repotest.Noise(uint64(20+i), 40<<10)
		first[name] = b
		second[name] = slices.Concat([]byte("changed"), b[:20<<10])
	}
	for day, f := range []repotest.Files{first, second} {
		if _, err := repotest.StoreFiles(ctx, be, f, day+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Forget(ctx, be, 1); err != nil {
		t.Fatal(err)
	}
	opts := repotest.NoWaste
	opts.MaxRepack = 30 << 10
	rep, err := repotest.Prune(ctx, be, opts)
	if err != nil {
		t.Fatal(err)
	}
	if limit := opts.MaxRepack * 5 / 4; rep.WrittenBytes > limit {
		t.Errorf("%d bytes were written, at most %d are allowed: %+v", rep.WrittenBytes, opts.MaxRepack, rep)
	}
}

// Packs that can be removed without writing anything do not prevent a rebase.
// Otherwise the next prune would still find something to do.
func TestRebaseIgnoresUnusedPacks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, opts := range map[string]repo.PruneOptions{
		"some waste": {MaxRepack: -1},
		"a bound":    {MaxRepack: 60 << 10, MaxUnused: repotest.NoWaste.MaxUnused},
	} {
		be := repotest.New(t)
		base := repotest.Noise(20, 60<<10)
		save := func(day int, b []byte, parent *repo.Snapshot) *repo.Snapshot {
			r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(byte(10+day)))
			if err != nil {
				t.Fatal(err)
			}
			return repotest.MustStoreAfter(t, r, repotest.Files{"file": b}, day, parent)
		}
		first := save(1, base, nil)
		var dead []int
		for day := 2; day < 26; day++ { // half of the content is new, half is as on the first day
			save(day, slices.Concat(base[:31<<10], repotest.Noise(uint64(100+day), 29<<10)), first)
			dead = append(dead, day)
		}
		save(27, slices.Concat([]byte("changed"), base[:30<<10]), first)
		if err := repotest.Forget(ctx, be, append(dead, 1)...); err != nil {
			t.Fatal(err)
		}
		before := repotest.Size(t, be, repotest.PacksDir)
		rep, err := repotest.Prune(ctx, be, opts)
		if err != nil {
			t.Fatal(err)
		}
		after := repotest.Size(t, be, repotest.PacksDir)
		again, err := repotest.Prune(ctx, be, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes, %d after a prune, %d after another one", name, before, after, repotest.Size(t, be, repotest.PacksDir))
		if rep.Rebased == 0 || again.Rebased > 0 {
			t.Errorf("%s: %d blocks rebased, and %d by the next prune", name, rep.Rebased, again.Rebased)
		}
	}
}

// A planned block takes as many bytes as were measured when it was chosen. If its
// chunks were joined with content that does not compress, they could take twice as
// much.
func TestRebaseStoresWhatItMeasured(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t)
	rng := rand.New(rand.NewPCG(1, 1))
	letters := make([]byte, 110<<10)
	for i := range letters {
		letters[i] = byte('a' + rng.IntN(9))
	}
	first, second := repotest.Files{}, repotest.Files{}
	for i := range 3 {
		photo := repotest.Noise(uint64(20+i), 38<<10)
		first[fmt.Sprint("a", i)] = photo
		second[fmt.Sprint("a", i)] = slices.Concat([]byte("changed"), photo[:24<<10])
	}
	first["b"] = append(slices.Clone(letters), repotest.Noise(30, 30<<10)...)
	second["b"] = slices.Concat([]byte("changed"), letters)
	for day, f := range []repotest.Files{first, second} {
		if _, err := repotest.StoreFiles(ctx, be, f, day+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Forget(ctx, be, 1); err != nil {
		t.Fatal(err)
	}
	before := repotest.Size(t, be, repotest.PacksDir)
	dry := repotest.NoWaste
	dry.DryRun = true
	forecast, err := repotest.Prune(ctx, be, dry)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := repotest.Prune(ctx, be, repotest.NoWaste)
	if err != nil || rep.Rebased == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	after := repotest.Size(t, be, repotest.PacksDir)
	if want := before - forecast.BytesToFree; after > want*11/10 {
		t.Errorf("%d bytes, and %d after the prune, want about %d", before, after, want)
	}
}
