package repo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// faultModes are ways for operation n of a run to fail.
var faultModes = map[string]func(n int) fault.Plan{
	"refused":        func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) },
	"answer lost":    func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) },
	"gone from here": func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) },
}

// everyOperation calls try with a store of which operation n fails, for every
// n that the run reaches and every way to fail. It wants at least least
// operations, so that a loop that tests nothing does not pass.
func everyOperation(t *testing.T, least int, base *memory.Backend, run func(be backend.Backend) error, judge func(be *memory.Backend, err error) error) {
	t.Helper()
	someOperations(t, eachOne, least, base, run, judge)
}

// eachOne is a step that leaves out nothing.
func eachOne() int { return 1 }

// sampled is a step that leaves out most, by a seed that a failure shows.
func sampled(t *testing.T, most int) func() int {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sampled by seed %d; SNAP_TEST_HUGE leaves nothing out", seed)
		}
	})
	rng := rand.New(rand.NewPCG(seed, 0))
	return func() int { return 1 + rng.IntN(most) }
}

// someOperations is everyOperation, but for those that step leaves out.
func someOperations(t *testing.T, step func() int, least int, base *memory.Backend, run func(be backend.Backend) error, judge func(be *memory.Backend, err error) error) {
	t.Helper()
	points := 0
	defer func() { t.Logf("%d operations have failed", points) }()
	for mode, plan := range faultModes {
		for n := step(); ; n += step() {
			be := base.Clone()
			store := fault.New(be, plan(n))
			err := run(store)
			if store.Count() < n {
				if err != nil || n <= least {
					t.Fatalf("%s: the undisturbed run had %d operations, want over %d: %v", mode, n-1, least, err)
				}
				break
			}
			points++
			if err == nil && mode == "gone from here" {
				t.Fatalf("%s at %d: the run noticed nothing", mode, n)
			}
			if err != nil && !errors.Is(err, fault.ErrInjected) {
				t.Errorf("%s at %d: the error hides its cause: %v", mode, n, err)
			}
			if err := judge(be, err); err != nil {
				t.Fatalf("%s at %d (run: %v): %v", mode, n, err, err)
			}
		}
	}
}

// judgeStore judges a run that was to store day 3 above days 1 and 2, and then
// stores day 4.
func judgeStore(be backend.Backend, runErr error) error {
	v, err := judge(be, testSecret)
	if err != nil {
		return err
	}
	stored := slices.Equal(v.days, []int{1, 2, 3})
	switch {
	case !stored && !slices.Equal(v.days, []int{1, 2}):
		return fmt.Errorf("snapshots of days %v", v.days)
	case !stored && runErr == nil:
		return errors.New("the run reported success, but its snapshot is not there")
	case !v.report.Clean() || len(v.report.Problems) > 0 || len(v.damaged) > 0:
		return fmt.Errorf("check: %+v %v", v.report, v.damaged)
	}
	if _, err := storeTiny(context.Background(), be, 4); err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	return judgeClean(be, testSecret, append(v.days, 4)...)
}

func TestStoreSurvivesEveryFault(t *testing.T) {
	everyOperation(t, 15, tinyRepo(t, 1, 2),
		func(be backend.Backend) error { _, err := storeTiny(context.Background(), be, 3); return err },
		func(be *memory.Backend, err error) error { return judgeStore(be, err) })
}

// putSizes returns the lengths of the files that a run puts.
func putSizes(base *memory.Backend, run func(backend.Backend) error) ([]int, error) {
	var sizes []int
	be := fault.New(base.Clone(), func(c fault.Call) fault.Action {
		if c.Op == fault.Put {
			sizes = append(sizes, c.Size)
		}
		return fault.Action{}
	})
	return sizes, run(be)
}

func TestStoreSurvivesAFullDisk(t *testing.T) {
	base := tinyRepo(t, 1, 2)
	run := func(be backend.Backend) error { _, err := storeTiny(context.Background(), be, 3); return err }
	sizes, err := putSizes(base, run)
	if err != nil || len(sizes) < 6 {
		t.Fatal(sizes, err)
	}
	room := 0
	for i, size := range sizes {
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

// A run that fails keeps what it has stored: packs that are durable are listed
// in an index file, and the next run does not store their chunks again.
func TestFailedRunKeepsPacks(t *testing.T) {
	base := tinyRepo(t, 1, 2)
	full, err := storeTiny(context.Background(), base.Clone(), 3)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for n := 1; ; n++ {
		be := base.Clone()
		store := fault.New(be, fault.On(fault.Put, packsDir, fault.Once(n, fault.ErrInjected)))
		if _, err := storeTiny(context.Background(), store, 3); err == nil {
			break
		}
		next, err := storeTiny(context.Background(), be, 3)
		if err != nil {
			t.Fatal(err)
		}
		if n > 1 && next.NewChunks >= full.NewChunks {
			t.Errorf("put %d of a pack failed: the next run stored %d chunks, a whole run %d", n, next.NewChunks, full.NewChunks)
		}
		kept += int(full.NewChunks - next.NewChunks)
	}
	if kept == 0 {
		t.Error("nothing was ever kept")
	}
}

// Ctrl-C at every operation: the run ends with the context's error, all packs
// that it wrote are in the index, and the next run stores the rest alone.
func TestCancelledRunKeepsEverything(t *testing.T) {
	base := tinyRepo(t, 1, 2)
	full, err := storeTiny(context.Background(), base.Clone(), 3)
	if err != nil {
		t.Fatal(err)
	}
	cheaper := 0
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		be := base.Clone()
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n {
				cancel()
			}
			return fault.Action{}
		})
		_, err := storeTiny(ctx, store, 3)
		cancel()
		if store.Count() < n {
			break
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at %d: got %v", n, err)
		}
		v, jerr := judge(be, testSecret)
		if jerr != nil || !v.report.Clean() || len(v.report.Leftovers) > 0 {
			t.Fatalf("cancelled at %d: %v, %+v", n, jerr, v.report)
		}
		if err == nil {
			continue
		}
		next, serr := storeTiny(context.Background(), be, 3)
		if serr != nil {
			t.Fatalf("cancelled at %d: next run: %v", n, serr)
		}
		if next.NewChunks > full.NewChunks || next.StoredBytes > full.StoredBytes+1000 {
			t.Errorf("cancelled at %d: the next run stored %d chunks in %d bytes, a whole run %d in %d",
				n, next.NewChunks, next.StoredBytes, full.NewChunks, full.StoredBytes)
		}
		if next.StoredBytes < full.StoredBytes/2 {
			cheaper++
		}
		if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
	}
	if cheaper == 0 {
		t.Error("no cancelled run ever spared the next one half of its work")
	}
}

// A lane that gave up a block has promised its chunks to other lanes: no
// snapshot may come of that, even if the caller goes on.
func TestNoSnapshotWithoutItsChunks(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	r := create(t, be)
	w := r.NewWriter(ctx)
	defer w.Close()
	lane := w.NewContentWriter()
	if _, err := lane.add(ctx, []byte("never flushed"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, &Snapshot{}); err == nil {
		t.Error("a snapshot was written though a chunk is missing")
	}
	if list, _, err := r.Snapshots(ctx); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}
