package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// judgeStore examines a repository with days 1 and 2 after a run that should have
// stored day 3 and ended with runErr. Then it stores day 4.
func judgeStore(be backend.Backend, runErr error) error {
	v, err := repotest.Examine(be, repotest.Secret)
	if err != nil {
		return err
	}
	stored := slices.Equal(v.Days, []int{1, 2, 3})
	switch {
	case !stored && !slices.Equal(v.Days, []int{1, 2}):
		return fmt.Errorf("snapshots of days %v", v.Days)
	case !stored && runErr == nil:
		return errors.New("the run reported success, but its snapshot is missing")
	case !v.Report.Clean() || len(v.Report.Problems) > 0 || len(v.Damaged) > 0:
		return fmt.Errorf("check: %+v %v", v.Report, v.Damaged)
	}
	if _, err := repotest.StoreDay(context.Background(), be, 4); err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	return repotest.Verify(be, append(v.Days, 4)...)
}

func TestStoreSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	repotest.EveryFault(t, repotest.Run{Base: repotest.New(t, 1, 2), Do: func(be backend.Backend) error { _, err := repotest.StoreDay(context.Background(), be, 3); return err }, Least: 15, Want: 12},
		func(be *memory.Backend, err error) error { return judgeStore(be, err) })
}

func TestStoreSurvivesAFullDisk(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2)
	run := func(be backend.Backend) error { _, err := repotest.StoreDay(context.Background(), be, 3); return err }
	sizes, err := repotest.PutSizes(base, run)
	if err != nil || len(sizes) < 6 {
		t.Fatal(sizes, err)
	}
	room := 0
	chosen := faultpoint.Choose(t, len(sizes), 4)
	for i, size := range sizes {
		if !slices.Contains(chosen, i) {
			room += size
			continue
		}
		for _, more := range []int{0, size / 2, size - 1} {
			be := base.Clone()
			err := run(fault.New(be, fault.Full(int64(room+more))))
			if !backend.IsNoSpace(err) {
				t.Errorf("room for %d bytes, put %d: got %v", room+more, i, err)
			}
			if err := judgeStore(be, err); err != nil {
				t.Fatalf("room for %d bytes: %v", room+more, err)
			}
		}
		room += size
	}
}

// If a run fails, what it has stored is kept: an index file lists its packs, and
// the next run does not store their chunks again.
func TestFailedRunKeepsPacks(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2)
	full, err := repotest.StoreDay(context.Background(), base.Clone(), 3)
	if err != nil {
		t.Fatal(err)
	}
	packs := 0
	count := fault.New(base.Clone(), func(c fault.Call) fault.Action {
		if c.Op == fault.Put && strings.HasPrefix(c.Name, repotest.PacksDir) {
			packs++
		}
		return fault.Action{}
	})
	if _, err := repotest.StoreDay(context.Background(), count, 3); err != nil || packs < 4 {
		t.Fatalf("%d packs were stored: %v", packs, err)
	}
	kept := 0
	for _, i := range faultpoint.Choose(t, packs, 4) {
		n := i + 1
		be := base.Clone()
		store := fault.New(be, fault.On(fault.Put, repotest.PacksDir, fault.Once(n, fault.ErrInjected)))
		if _, err := repotest.StoreDay(context.Background(), store, 3); err == nil {
			t.Fatalf("put %d of a pack failed and the run reported success", n)
		}
		next, err := repotest.StoreDay(context.Background(), be, 3)
		if err != nil {
			t.Fatal(err)
		}
		if n > 1 && next.NewChunks >= full.NewChunks {
			t.Errorf("put %d of a pack failed: the next run stored %d chunks, a complete run %d", n, next.NewChunks, full.NewChunks)
		}
		kept += int(full.NewChunks - next.NewChunks)
	}
	if kept == 0 {
		t.Error("nothing was ever kept")
	}
}

// A run that is canceled at any step returns the context's error. All packs that
// it wrote are in the index, and the next run stores only the rest.
func TestCancelledRunKeepsEverything(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2)
	full, err := repotest.StoreDay(context.Background(), base.Clone(), 3)
	if err != nil {
		t.Fatal(err)
	}
	cheaper := 0
	run := repotest.Run{Base: base, Want: 8, Do: func(be backend.Backend) error {
		_, err := repotest.StoreDay(context.Background(), be, 3)
		return err
	}}
	for _, n := range run.Steps(t) {
		ctx, cancel := context.WithCancel(context.Background())
		be := base.Clone()
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n {
				cancel()
			}
			return fault.Action{}
		})
		_, err := repotest.StoreDay(ctx, store, 3)
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at %d: got %v", n, err)
		}
		v, jerr := repotest.Examine(be, repotest.Secret)
		if jerr != nil || !v.Report.Clean() || len(v.Report.Unreferenced) > 0 {
			t.Fatalf("cancelled at %d: %v, %+v", n, jerr, v.Report)
		}
		if err == nil {
			continue
		}
		next, serr := repotest.StoreDay(context.Background(), be, 3)
		if serr != nil {
			t.Fatalf("cancelled at %d: next run: %v", n, serr)
		}
		if next.NewChunks > full.NewChunks || next.StoredBytes > full.StoredBytes+1000 {
			t.Errorf("cancelled at %d: the next run stored %d chunks in %d bytes, a complete run %d in %d",
				n, next.NewChunks, next.StoredBytes, full.NewChunks, full.StoredBytes)
		}
		if next.StoredBytes < full.StoredBytes/2 {
			cheaper++
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
	}
	if cheaper == 0 && faultpoint.All() {
		t.Error("no cancelled run saved the next one half of its work")
	}
}

// A content writer that was not flushed has returned IDs of chunks that are not
// stored. Then no snapshot may be written, even if the caller continues.
func TestNoSnapshotWithoutItsChunks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	w := r.NewWriter(ctx)
	defer w.Close()
	cw := w.NewContentWriter()
	if _, err := cw.AddChunk(ctx, []byte("never flushed")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, &repo.Snapshot{}); err == nil {
		t.Error("a snapshot was written though a chunk is missing")
	}
	if list, _, err := r.Snapshots(ctx); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}
