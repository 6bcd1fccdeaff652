package rebase_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// Other programs may make chains as long as the format allows. A block at the
// end of one is rebased like any other.
func TestRebaseOfTheLongestChains(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t)
	r := repotest.MustOpen(t, be)
	version := func(n int) []byte {
		b := repotest.Noise(9, 1500)
		copy(b[100:], fmt.Appendf(nil, "version %d", n))
		return b
	}
	blocks := []repotest.Block{repotest.Raw(version(0))}
	for n := range pack.MaxDepth {
		blocks = append(blocks, repotest.Delta(r, version(n+1), version(n)))
	}
	repotest.PutPack(t, r, be, pack.Content, blocks...)
	last := r.NewHasher().ID(version(pack.MaxDepth))
	for i, n := range []int{0, pack.MaxDepth} {
		if _, err := repotest.StoreFiles(ctx, be, repotest.Files{"file": version(n)}, i+1); err != nil {
			t.Fatal(err)
		}
	}
	r = repotest.MustOpen(t, be)
	if d := repotest.Depth(t, r, last); d != pack.MaxDepth {
		t.Fatalf("depth %d", d)
	}
	rep, err := repotest.Prune(ctx, be, repotest.NoWaste)
	if err != nil || rep.Rebased == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	r = repotest.MustOpen(t, be)
	if d := repotest.Depth(t, r, last); d > 1 {
		t.Errorf("depth %d after the prune", d)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	got, err := repotest.Restore(ctx, r, list[1])
	if err == nil {
		err = got.Same(repotest.Files{"file": version(pack.MaxDepth)})
	}
	if err != nil {
		t.Error(err)
	}
}

// Blocks that may not be rewritten are not read and encoded to measure them.
func TestRebaseMeasuresOnlyWhatItMayWrite(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3, 4)
	if err := repotest.Forget(ctx, be, 1, 3); err != nil {
		t.Fatal(err)
	}
	var contents []string
	for _, p := range repotest.MustOpen(t, be).Index().Packs() {
		if p.Kind == pack.Content {
			contents = append(contents, repotest.PackName(p.ID))
		}
	}
	for _, most := range []int64{0, -1} {
		reads := 0
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.Op == fault.ReadAt && slices.Contains(contents, c.Name) {
				reads++
			}
			return fault.Action{}
		})
		opts := repotest.NoWaste
		opts.MaxRepack, opts.DryRun = most, true
		r, err := repo.Open(ctx, backend.Backend(store), repotest.Secret, repotest.SmallPacks(3))
		if err != nil {
			t.Fatal(err)
		}
		rep, err := r.Prune(ctx, opts)
		if err != nil || (rep.Rebased > 0) != (most < 0) || (reads > 0) != (most < 0) {
			t.Errorf("at most %d: %d reads of content, %+v, %v", most, reads, rep, err)
		}
	}
}

// A block that cannot be measured is not rebased, and the forecast is still made.
func TestRebaseSkipsDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3, 4)
	if err := repotest.Forget(ctx, be, 1, 3); err != nil {
		t.Fatal(err)
	}
	for _, p := range repotest.MustOpen(t, be).Index().Packs() {
		if p.Kind == pack.Content {
			repotest.Flip(t, be, repotest.PackName(p.ID), 20) // in its first block
		}
	}
	opts := repotest.NoWaste
	opts.DryRun = true
	r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(3))
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := r.Prune(ctx, opts); err != nil || rep.PacksToRemove == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// The leftovers of many days are in many small blocks. A rebase joins them as a
// backup would have done.
func TestRebaseJoinsLeftovers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const page, days = 64 << 10, 9
	version := func(day int) repotest.Files {
		b := append([]byte("SQLite format 3\x00"), repotest.Noise(9, (days+1)*page-16)...)
		copy(b[100:], fmt.Appendf(nil, "changed on day %d", day)) // the first page changes every day
		for n := 2; n <= day; n++ {
			copy(b[n*page+100:], fmt.Appendf(nil, "changed on day %d", n)) // page n changes on day n only
		}
		return repotest.Files{"file.db": b}
	}
	repository := func(days ...int) *memory.Backend {
		be := repotest.New(t)
		for _, day := range days {
			if _, err := repotest.StoreFiles(ctx, be, version(day), day); err != nil {
				t.Fatal(err)
			}
		}
		return be
	}
	deltas := func(be *memory.Backend) (n int) {
		r := repotest.MustOpen(t, be)
		for _, p := range r.Index().Packs() {
			for _, ref := range p.Blocks {
				if _, dict := r.Index().Dependencies(ref); p.Kind == pack.Content && len(dict) > 0 {
					n++
				}
			}
		}
		return n
	}
	be := repository(1, 2, 3, 4, 5, 6, 7, 8, 9)
	if n := deltas(be); n != days-1 {
		t.Fatalf("%d blocks before, want %d", n, days-1)
	}
	if err := repotest.Forget(ctx, be, 2, 3, 4, 5, 6, 7, 8); err != nil {
		t.Fatal(err)
	}
	if rep, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil || rep.Rebased < days-2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	// The leftovers of day 2 need day 1, which is kept, so they are not rebased.
	fresh := repository(1, 9)
	if got, want := deltas(be), deltas(fresh); got != want+1 {
		t.Errorf("%d blocks, a fresh repository has %d", got, want)
	}
	if got, want := repotest.Size(t, be, repotest.PacksDir), repotest.Size(t, fresh, repotest.PacksDir); got > want*101/100 {
		t.Errorf("%d bytes, a fresh repository has %d", got, want)
	}
	r := repotest.MustOpen(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for i, day := range []int{1, 9} {
		got, err := repotest.Restore(ctx, r, list[i])
		if err == nil {
			err = got.Same(version(day))
		}
		if err != nil {
			t.Errorf("day %d: %v", day, err)
		}
	}
}

// A rebase that saves bytes frees nothing if what it makes unused may remain. Then there is
// none.
func TestRebaseFreesMoreThanItWrites(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const page = 8 << 10 // several in a pack
	files := func(content []byte, others int) repotest.Files {
		f := repotest.Files{"file.db": append([]byte("SQLite format 3\x00"), content...)}
		for n := range others {
			f[fmt.Sprint("other", n)] = repotest.Noise(uint64(100+n), 2*page)
		}
		return f
	}
	second := repotest.Noise(2, page-16)
	third := slices.Concat(second[:page/2], make([]byte, page/2-16))
	be := repotest.New(t)
	for day, f := range []repotest.Files{files(repotest.Noise(1, page-16), 1), files(second, 2), files(third, 2)} {
		if _, err := repotest.StoreFiles(ctx, be, f, day+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Forget(ctx, be, 2); err != nil {
		t.Fatal(err)
	}
	before := repotest.Size(t, be, repotest.PacksDir)
	for _, c := range []struct {
		allowed int64
		rebased bool
	}{{page * 5 / 4, false}, {page / 4, true}, {0, true}} {
		be := be.Clone()
		opts := repotest.NoWaste
		opts.MaxUnused = func(int64) int64 { return c.allowed }
		rep, err := repotest.Prune(ctx, be, opts)
		if err != nil || (rep.Rebased > 0) != c.rebased {
			t.Errorf("allowed %d: %d rebased, error %v", c.allowed, rep.Rebased, err)
		}
		if after := repotest.Size(t, be, repotest.PacksDir); after > before || rep.WrittenBytes > rep.FreedBytes {
			t.Errorf("allowed %d: %d bytes after %d; %d freed, %d written", c.allowed, after, before, rep.FreedBytes, rep.WrittenBytes)
		}
	}
}
