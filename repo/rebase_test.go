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
			if frame, err = codec.Delta(one.plain, version(n-1)); err != nil {
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
