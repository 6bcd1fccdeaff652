package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// Several processes back up into one repository at the same time. They may store
// a chunk twice, but all snapshots can be restored.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	var g sync.WaitGroup
	for day := 2; day <= 5; day++ {
		g.Go(func() {
			if _, err := repotest.StoreDay(ctx, be, day); err != nil {
				t.Errorf("day %d: %v", day, err)
			}
		})
	}
	g.Wait()
	if err := repotest.Verify(be, 1, 2, 3, 4, 5); err != nil {
		t.Fatal(err)
	}
}

// Another process that dies, or whose disk fails, does not disturb a backup.
func TestOtherProcessFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	run := repotest.Run{Base: base, Least: 10, Want: 5, Do: func(be backend.Backend) error { _, err := repotest.StoreDay(ctx, be, 2); return err }}
	for _, n := range run.Steps(t) {
		be := base.Clone()
		stored := false // the record of day 2, before the fault
		failing := fault.New(be, fault.From(n, fault.ErrInjected), func(c fault.Call) fault.Action {
			stored = stored || c.Op == fault.Put && c.N < n && repotest.Folder(c.Name) == "snapshots"
			return fault.Action{}
		})
		var g sync.WaitGroup
		var failed error
		g.Go(func() { _, failed = repotest.StoreDay(ctx, failing, 2) })
		if _, err := repotest.StoreDay(ctx, be, 3); err != nil {
			t.Errorf("fault at %d: the other process: %v", n, err)
		}
		g.Wait()
		want := []int{1, 3}
		if stored {
			want = []int{1, 2, 3}
		} else if failed == nil {
			t.Errorf("fault at %d: no error, although no snapshot was stored", n)
		}
		if err := repotest.Verify(be, want...); err != nil {
			t.Fatalf("fault at %d: %v", n, err)
		}
	}
}

// Several writers and readers use one Repo.
func TestTwoWritersOfOneRepo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	opts := repotest.SmallPacks(3)
	opts.Workers = 3
	r, err := repotest.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	var g sync.WaitGroup
	for day := 2; day <= 4; day++ {
		g.Go(func() {
			s, err := repotest.Store(ctx, r, repotest.Day(day), day)
			if err != nil {
				t.Errorf("day %d: %v", day, err)
				return
			}
			// The same Repo can read what it has just written.
			if got, err := repotest.Restore(ctx, r, s); err != nil || got.Same(repotest.Day(day)) != nil {
				t.Errorf("day %d: %v", day, err)
			}
		})
		g.Go(func() {
			if got, err := repotest.Restore(ctx, r, first); err != nil || got.Same(repotest.Day(1)) != nil {
				t.Error("reading while writing:", err)
			}
		})
	}
	g.Wait()
	if err := repotest.Verify(be, 1, 2, 3, 4); err != nil {
		t.Fatal(err)
	}
}

// Several content writers of one Writer store content that is largely the same.
func TestManyContentWriters(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	repotest.Create(t, be)
	opts := repotest.SmallPacks(3)
	opts.Workers = 4
	r, err := repotest.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	w := r.NewWriter(ctx)
	defer w.Close()
	const lanes, each = 6, 20
	contents := make([]tree.Content, lanes*each)
	var g sync.WaitGroup
	for l := range lanes {
		g.Go(func() {
			cw := w.NewContentWriter()
			for i := range each {
				var err error
				if contents[l*each+i], err = cw.Store(ctx, bytes.NewReader(sharedFile(l*each+i)), nil); err != nil {
					t.Error(err)
				}
			}
			if err := cw.Flush(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	b := tree.NewBuilder(w.SaveNode, nil)
	for i, c := range contents {
		if err := b.Add(ctx, &tree.Entry{Path: fmt.Sprintf("f%04d", i), Content: c}); err != nil {
			t.Fatal(err)
		}
	}
	s := &repo.Snapshot{}
	if s.Root, err = b.Finish(ctx); err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := repotest.Restore(ctx, repotest.MustOpen(t, be), s)
	for i := range contents {
		if !bytes.Equal(got[fmt.Sprintf("f%04d", i)], sharedFile(i)) {
			t.Fatalf("file %d differs (%v)", i, err)
		}
	}
	if s.NewChunks > 40 {
		t.Errorf("%d chunks: equal content was stored more than once", s.NewChunks)
	}
}

func sharedFile(i int) []byte { return repotest.Noise(uint64(i%30), 1000+i%30) }

func TestParallelReadersWithTinyCache(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	for _, size := range []int{1, 20 << 10, 100 << 10} {
		opts := repotest.SmallPacks(3)
		opts.Cache = size
		r, err := repotest.Open(ctx, be, repotest.Secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := r.Snapshots(ctx)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		var g sync.WaitGroup
		for i := range 8 {
			g.Go(func() {
				s := list[i%2]
				if got, err := repotest.Restore(ctx, r, s); err != nil || got.Same(repotest.Day(s.Time.Day())) != nil {
					t.Errorf("cache of %d bytes: %v", size, err)
				}
				if held := repo.Store(r).Cache.Size(); held > size {
					t.Errorf("a cache of %d bytes held %d", size, held)
				}
			})
		}
		g.Wait()
	}
}

// LoadIndex gives blocks new numbers. A block cached under its old number must
// not be returned for the block that has this number now.
func TestReloadedIndexForgetsBlocks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	var chunks [][]byte
	for i := range 12 {
		chunks = append(chunks, repotest.Noise(uint64(i), 100+i))
		repotest.PutPack(t, r, be, pack.Content, repotest.Raw(chunks[i]))
		if err := r.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if err := repotest.ReadChunks(t, r, chunks...); err != nil {
			t.Fatalf("after pack %d: %v", i, err)
		}
	}
}

// A reader stops when its context is canceled.
func TestReadingCanBeCancelled(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	r := repotest.MustOpen(t, be)
	s, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = r.Walk(ctx, s, "", func(e *tree.Entry) error {
		if seen++; seen == 3 {
			cancel()
		}
		return r.WriteContent(ctx, &bytes.Buffer{}, &e.Content)
	})
	if !errors.Is(err, context.Canceled) || seen > 4 {
		t.Errorf("%d entries, %v", seen, err)
	}
	if _, err := r.Check(ctx, repo.CheckOptions{ReadData: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("check: %v", err)
	}
}

// A store that does not answer is not reported as damaged.
func TestStoreFailureIsNotDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	store := fault.New(be)
	r, err := repotest.Open(ctx, store, repotest.Secret, repotest.SmallPacks(3))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	store.SetPlan(fault.From(1, fault.ErrInjected))
	if _, err := repotest.Restore(ctx, r, s); !errors.Is(err, fault.ErrInjected) || errors.Is(err, repo.ErrDamaged) {
		t.Errorf("restore: got %v", err)
	}
	store.SetPlan(fault.From(2, fault.ErrInjected)) // after listing
	if _, damaged, err := r.Snapshots(ctx); !errors.Is(err, fault.ErrInjected) || len(damaged) > 0 {
		t.Errorf("snapshots: got %v, %v", damaged, err)
	}
	store.SetPlan(fault.From(3, fault.ErrInjected)) // after listing
	if err := r.LoadIndex(ctx); !errors.Is(err, fault.ErrInjected) || errors.Is(err, repo.ErrDamaged) {
		t.Errorf("index: got %v", err)
	}
}
