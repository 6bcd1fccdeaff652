package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// Two processes back up into one repository at the same time. They may store
// a chunk twice; both snapshots are whole.
func TestTwoProcesses(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1)
	var g sync.WaitGroup
	for day := 2; day <= 5; day++ {
		g.Go(func() {
			if _, err := storeTiny(ctx, be, day); err != nil {
				t.Errorf("day %d: %v", day, err)
			}
		})
	}
	g.Wait()
	if err := judgeClean(be, testSecret, 1, 2, 3, 4, 5); err != nil {
		t.Fatal(err)
	}
}

// The same, when one of them dies or its disk fails at every possible moment.
func TestOtherProcessFails(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1)
	for n := 1; ; n += 3 {
		be := base.Clone()
		failing := fault.New(be, fault.From(n, fault.ErrInjected))
		var g sync.WaitGroup
		var failed error
		g.Go(func() { _, failed = storeTiny(ctx, failing, 2) })
		if _, err := storeTiny(ctx, be, 3); err != nil {
			t.Errorf("fault at %d: the sound process: %v", n, err)
		}
		g.Wait()
		want := []int{1, 3}
		if failed == nil {
			want = []int{1, 2, 3}
		}
		if err := judgeClean(be, testSecret, want...); err != nil {
			t.Fatalf("fault at %d: %v", n, err)
		}
		if failed == nil {
			break
		}
	}
}

// Two writers and several readers of one Repo.
func TestTwoWritersOfOneRepo(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1)
	opts := tinyOptions(3)
	opts.Workers = 3
	r, err := openWith(ctx, be, testSecret, opts)
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
			s, err := store(ctx, r, tinyFiles(day), day)
			if err != nil {
				t.Errorf("day %d: %v", day, err)
				return
			}
			// What has just been written can be read through the same Repo.
			if got, err := restore(ctx, r, s); err != nil || sameFiles(got, tinyFiles(day)) != nil {
				t.Errorf("day %d: %v", day, err)
			}
		})
		g.Go(func() {
			if got, err := restore(ctx, r, first); err != nil || sameFiles(got, tinyFiles(1)) != nil {
				t.Error("reading beside writing:", err)
			}
		})
	}
	g.Wait()
	if err := judgeClean(be, testSecret, 1, 2, 3, 4); err != nil {
		t.Fatal(err)
	}
}

// Several lanes feed one writer, with much content in common.
func TestManyLanes(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	create(t, be)
	opts := tinyOptions(3)
	opts.Workers = 4
	r, err := openWith(ctx, be, testSecret, opts)
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
			lane := w.NewContentWriter()
			for i := range each {
				var err error
				if contents[l*each+i], err = lane.Store(ctx, bytes.NewReader(laneFile(l*each+i)), nil); err != nil {
					t.Error(err)
				}
			}
			if err := lane.Flush(ctx); err != nil {
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
	s := &Snapshot{}
	if s.Root, err = b.Finish(ctx); err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := restore(ctx, open(t, be), s)
	for i := range contents {
		if !bytes.Equal(got[fmt.Sprintf("f%04d", i)], laneFile(i)) {
			t.Fatalf("file %d differs (%v)", i, err)
		}
	}
	if s.NewChunks > 40 {
		t.Errorf("%d chunks: equal content was stored more than once", s.NewChunks)
	}
}

func laneFile(i int) []byte { return noise(uint64(i%30), 1000+i%30) }

func TestParallelReadersWithTinyCache(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1, 2)
	for _, size := range []int{1, 20 << 10, 100 << 10} {
		opts := tinyOptions(3)
		opts.Cache = size
		r, err := openWith(ctx, be, testSecret, opts)
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
				if got, err := restore(ctx, r, s); err != nil || sameFiles(got, tinyFiles(s.Time.Day())) != nil {
					t.Errorf("cache of %d bytes: %v", size, err)
				}
				if held := r.cache.held(); held > size {
					t.Errorf("a cache of %d bytes held %d", size, held)
				}
			})
		}
		g.Wait()
	}
}

// held counts what the cache really holds.
func (c *blockCache) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for e := c.order.Front(); e != nil; e = e.Next() {
		n += cap(e.Value.(*cached).block.plain)
	}
	if n != c.size || len(c.blocks) != c.order.Len() {
		panic(fmt.Sprintf("cache says %d bytes in %d blocks, holds %d in %d", c.size, len(c.blocks), n, c.order.Len()))
	}
	return n
}

func TestCacheKeepsItsLimit(t *testing.T) {
	c := newBlockCache(1000)
	for i := range 500 {
		c.put(index.BlockRef(i*7%90), decoded{plain: make([]byte, i%300, 300)})
		if held := c.held(); held > 1000 {
			t.Fatalf("held %d bytes", held)
		}
	}
	c.put(1000, decoded{plain: make([]byte, 1001)})
	if _, ok := c.get(1000); ok {
		t.Error("a block above the limit was kept")
	}
	if c.held() == 0 {
		t.Error("nothing is kept")
	}
}

// A reader whose neighbour gives up, while it waits for the block that the
// neighbour was loading, loads it for itself.
func TestCancelledLoadIsNotContagious(t *testing.T) {
	c := newBlockCache(1000)
	started := make(chan struct{})
	giveUp := make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() {
		_, err := c.load(context.Background(), 1, func() (decoded, error) {
			close(started)
			<-giveUp
			return decoded{}, fmt.Errorf("read: %w", context.Canceled)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who was cancelled: got %v", err)
		}
	})
	<-started
	for range 4 {
		g.Go(func() {
			b, err := c.load(context.Background(), 1, func() (decoded, error) { return decoded{plain: []byte("block")}, nil })
			if err != nil || string(b.plain) != "block" {
				t.Errorf("neighbour: %q, %v", b.plain, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.Go(func() {
		_, err := c.load(ctx, 1, func() (decoded, error) { return decoded{}, ctx.Err() })
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	time.Sleep(10 * time.Millisecond) // so that they wait; it holds without, too
	cancel()
	close(giveUp)
	g.Wait()
}

// Loading the index anew numbers blocks anew: nothing cached under an old
// number may be taken for another block.
func TestReloadedIndexForgetsBlocks(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	r := create(t, be)
	var chunks [][]byte
	for i := range 12 {
		chunks = append(chunks, noise(uint64(i), 100+i))
		putPack(t, r, be, pack.Content, raw(chunks[i]))
		if err := r.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if err := readAll(t, r, chunks...); err != nil {
			t.Fatalf("after pack %d: %v", i, err)
		}
	}
}

// A reader that is cancelled stops.
func TestReadingCanBeCancelled(t *testing.T) {
	be := tinyRepo(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	r := open(t, be)
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
	if _, err := r.Check(ctx, CheckOptions{ReadData: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("check: %v", err)
	}
}

// Failures of the store that are no damage are not called damage.
func TestStoreFailureIsNotDamage(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1)
	store := fault.New(be)
	r, err := openWith(ctx, store, testSecret, tinyOptions(3))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	store.SetPlan(fault.On(fault.ReadAt, packsDir, fault.From(1, fault.ErrInjected)))
	if _, err := restore(ctx, r, s); !errors.Is(err, fault.ErrInjected) || errors.Is(err, ErrDamaged) {
		t.Errorf("restore: got %v", err)
	}
	store.SetPlan(fault.On(fault.ReadAt, snapshotsDir, fault.From(1, fault.ErrInjected)))
	if _, damaged, err := r.Snapshots(ctx); !errors.Is(err, fault.ErrInjected) || len(damaged) > 0 {
		t.Errorf("snapshots: got %v, %v", damaged, err)
	}
	store.SetPlan(fault.On(fault.ReadAt, indexDir, fault.From(1, fault.ErrInjected)))
	if err := r.LoadIndex(ctx); !errors.Is(err, fault.ErrInjected) || errors.Is(err, ErrDamaged) {
		t.Errorf("index: got %v", err)
	}
}
