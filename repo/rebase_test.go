package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Other programs may make chains as long as the format allows. A block at the end
// of one is as good as any.
func TestRebaseOfTheLongestChains(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t)
	r := open(t, be)
	version := func(n int) []byte {
		b := noise(9, 1500)
		copy(b[100:], fmt.Appendf(nil, "version %d", n))
		return b
	}
	w := r.NewWriter(ctx)
	codec := pack.NewCodec(r.blocks)
	var before []chunk.ID
	for n := range pack.MaxDepth + 1 {
		one := run{plain: version(n)}
		id := r.NewHasher().ID(one.plain)
		one.chunks = []pack.Chunk{{ID: id, Length: uint32(len(one.plain))}}
		var frame []byte
		if n > 0 {
			var err error
			if frame, err = codec.CompressDelta(one.plain, version(n-1)); err != nil {
				t.Fatal(err)
			}
		}
		sealed, block, err := sealRun(codec, nil, &one, frame, before)
		if err == nil {
			err = w.place(pack.Content, sealed, block)
		}
		if err != nil {
			t.Fatal(err)
		}
		before = []chunk.ID{id}
	}
	if err := errors.Join(w.Finish(ctx), w.Close()); err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{0, pack.MaxDepth} {
		if _, err := storeFiles(ctx, be, files{"file": version(n)}, i+1); err != nil {
			t.Fatal(err)
		}
	}
	r = open(t, be)
	if d := depthOf(t, r, before[0]); d != pack.MaxDepth {
		t.Fatalf("depth %d", d)
	}
	rep, err := pruneTiny(ctx, be, everything)
	if err != nil || rep.Rebased == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	r = open(t, be)
	if d := depthOf(t, r, before[0]); d > 1 {
		t.Errorf("depth %d after the prune", d)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	got, err := restore(ctx, r, list[1])
	if err == nil {
		err = sameFiles(got, files{"file": version(pack.MaxDepth)})
	}
	if err != nil {
		t.Error(err)
	}
}

// What may not be written anew is not read and encoded to see what it would take.
func TestRebaseTriesOnlyWhatItMayWrite(t *testing.T) {
	ctx := context.Background()
	be := chainRepo(t, 1, 2, 3, 4)
	if err := forgetTiny(ctx, be, 1, 3); err != nil {
		t.Fatal(err)
	}
	var contents []string
	for _, p := range open(t, be).index.Packs() {
		if p.Kind == pack.Content {
			contents = append(contents, packName(p.ID))
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
		opts := everything
		opts.MaxRepack, opts.DryRun = most, true
		r, err := Open(ctx, backend.Backend(store), testSecret, tinyOptions(3))
		if err != nil {
			t.Fatal(err)
		}
		rep, err := r.Prune(ctx, opts)
		if err != nil || (rep.Rebased > 0) != (most < 0) || (reads > 0) != (most < 0) {
			t.Errorf("at most %d: %d reads of content, %+v, %v", most, reads, rep, err)
		}
	}
}

// A block that cannot be tried is let be, and the forecast is made all the same.
func TestRebaseLetsDamageBe(t *testing.T) {
	ctx := context.Background()
	be := chainRepo(t, 1, 2, 3, 4)
	if err := forgetTiny(ctx, be, 1, 3); err != nil {
		t.Fatal(err)
	}
	for _, p := range open(t, be).index.Packs() {
		if p.Kind == pack.Content {
			flipBit(t, be, packName(p.ID), 20) // of its first block
		}
	}
	opts := everything
	opts.DryRun = true
	r, err := Open(ctx, be, testSecret, tinyOptions(3))
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := r.Prune(ctx, opts); err != nil || rep.RemovePacks == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// What is left of many days lies in a block for each of them. It is put together
// as a backup would have done it.
func TestRebaseJoinsWhatIsLeft(t *testing.T) {
	ctx := context.Background()
	const page, days = 64 << 10, 9
	version := func(day int) files {
		b := append([]byte("SQLite format 3\x00"), noise(9, (days+1)*page-16)...)
		copy(b[100:], fmt.Appendf(nil, "changed on day %d", day)) // every day
		for n := 2; n <= day; n++ {
			copy(b[n*page+100:], fmt.Appendf(nil, "changed on day %d", n)) // once
		}
		return files{"file.db": b}
	}
	repository := func(days ...int) *memory.Backend {
		be := tinyRepo(t)
		for _, day := range days {
			if _, err := storeFiles(ctx, be, version(day), day); err != nil {
				t.Fatal(err)
			}
		}
		return be
	}
	deltas := func(be *memory.Backend) (n int) {
		r := open(t, be)
		for _, p := range r.index.Packs() {
			for _, ref := range p.Blocks {
				if _, dict := r.index.Dependencies(ref); p.Kind == pack.Content && len(dict) > 0 {
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
	if err := forgetTiny(ctx, be, 2, 3, 4, 5, 6, 7, 8); err != nil {
		t.Fatal(err)
	}
	if rep, err := pruneTiny(ctx, be, everything); err != nil || rep.Rebased < days-2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	// What is left of day 2 leans on day 1, which is there, and stays as it is.
	fresh := repository(1, 9)
	if got, want := deltas(be), deltas(fresh); got != want+1 {
		t.Errorf("%d blocks, a fresh repository has %d", got, want)
	}
	if got, want := size(t, be, packsDir), size(t, fresh, packsDir); got > want*101/100 {
		t.Errorf("%d bytes, a fresh repository has %d", got, want)
	}
	r := open(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for i, day := range []int{1, 9} {
		got, err := restore(ctx, r, list[i])
		if err == nil {
			err = sameFiles(got, version(day))
		}
		if err != nil {
			t.Errorf("day %d: %v", day, err)
		}
	}
}
