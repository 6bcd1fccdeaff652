package writer_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// TestAYearOfDeltas stores a small device every day. Every day it compares new
// chains with the limits in docs/format.md. At the end it compares sampled days
// with what was stored, the size of the repository with what changed, and the
// cost of reading the newest day with that of the oldest.
func TestAYearOfDeltas(t *testing.T) {
	t.Parallel()
	days := 90
	switch {
	case faultpoint.All():
		days = 365
	case testing.Short():
		days = 30
	}
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	d := repotest.NewDiary(40)
	var snapshots []*repo.Snapshot
	var want []repotest.Files
	var parent *repo.Snapshot
	floor, grown := 0, int64(0)
	chains := chainCheck{seen: map[pack.ID]bool{}}
	for day := range days {
		if day > 0 {
			d.Next(day)
		}
		f := d.Files()
		parent = repotest.MustStoreAfter(t, r, f, day, parent)
		if day > 0 {
			grown += parent.StoredBytes
			floor += differences(t, want[day-1], f)
		}
		snapshots, want = append(snapshots, parent), append(want, f)
		chains.check(t, r, day)
	}
	first := snapshots[0].StoredBytes
	t.Logf("first day %d bytes, later ones %d on average; what changed, file by file, %d", first, grown/int64(days-1), floor/(days-1))
	t.Logf("%d deltas against %d chunks, the deepest at %d, the longest chain %d bytes", chains.deltas, chains.bases, chains.depth, chains.longest)
	if chains.deltas < days || chains.depth < 2 {
		t.Errorf("only %d deltas, depth %d", chains.deltas, chains.depth)
	}
	// The differences are tiny here. Trees, headers, the index, and above all
	// changes that are stored again when a chain is at its limit, take more.
	if avg := grown / int64(days-1); avg > 12<<10 {
		t.Errorf("a day takes %d bytes on average", avg)
	}
	if per := chains.bases / chains.deltas; per > 9 {
		t.Errorf("a delta has %d chunks in its dictionary on average", per)
	}
	for day, s := range snapshots {
		if day%7 != 0 && day != days-1 {
			continue
		}
		got, err := repotest.Restore(ctx, repotest.MustOpen(t, be), s)
		if err == nil {
			err = got.Same(want[day])
		}
		if err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	report, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() {
		t.Fatalf("check: %+v, %v", report, err)
	}
	oldest, newest := readingCost(t, be, snapshots[0]), readingCost(t, be, parent)
	worst := oldest
	for _, s := range snapshots[days/2 : days/2+8] {
		if c := readingCost(t, be, s); c.bytes > worst.bytes {
			worst = c
		}
	}
	t.Logf("reading the oldest day decodes %v, the newest %v, the costliest of eight in the middle %v", oldest, newest, worst)
	// Most blocks of such a small device are in chains.
	if newest.bytes > 8*oldest.bytes {
		t.Errorf("reading the newest day decodes %v, the oldest %v", newest, oldest)
	}
}

// chainCheck verifies the chains of new blocks.
type chainCheck struct {
	seen           map[pack.ID]bool
	deltas         int // number of deltas
	bases          int // number of chunks in their dictionaries
	depth, longest int // of the deepest and of the longest chain
}

func (h *chainCheck) check(t testing.TB, r *repo.Repo, day int) {
	t.Helper()
	for _, p := range r.Index().Packs() {
		if h.seen[p.ID] {
			continue
		}
		h.seen[p.ID] = true
		for _, ref := range p.Blocks {
			_, b := r.Index().Block(ref)
			if b.Encoding != pack.Delta {
				continue
			}
			at, stored, ok := chainDepth(r.Index(), b.Chunks[0].ID)
			if !ok {
				t.Fatalf("day %d: a chain without end", day)
			}
			h.deltas++
			h.bases += len(b.Dict)
			h.depth, h.longest = max(h.depth, at), max(h.longest, stored)
			if limit := max(chain.Factor*b.Size(), chain.MinStored) + int(b.Stored); stored > limit || at > chain.MaxDepth {
				t.Errorf("day %d: a block of %d bytes has a chain of %d bytes and depth %d", day, b.Size(), stored, at)
			}
		}
	}
}

// differences adds up the sizes of the deltas of each changed file against the day
// before, even if reading them would cost too much.
func differences(t testing.TB, before, after repotest.Files) int {
	t.Helper()
	total := 0
	codec := pack.NewCodec(nil)
	for name, b := range after {
		if bytes.Equal(before[name], b) {
			continue
		}
		frame, err := codec.CompressDelta(b, before[name])
		if err != nil {
			t.Fatal(err)
		}
		total += len(frame)
	}
	return total
}

// reads counts what restoring a snapshot reads.
type reads struct {
	blocks int
	bytes  int64
}

func (r reads) String() string { return fmt.Sprintf("%d blocks of %d bytes", r.blocks, r.bytes) }

func readingCost(t testing.TB, be backend.Backend, s *repo.Snapshot) reads {
	t.Helper()
	var c reads
	counting := fault.New(be)
	r, err := repotest.Open(context.Background(), counting, repotest.Secret, repotest.Options(9))
	if err != nil {
		t.Fatal(err)
	}
	counting.SetPlan(func(call fault.Call) fault.Action {
		if call.Op == fault.ReadAt {
			c.blocks++
			c.bytes += int64(call.Size)
		}
		return fault.Action{}
	})
	if _, err := repotest.Restore(context.Background(), r, s); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestADayOfATreeIsSmall compares the stored metadata of a large device with
// what changed in a day.
func TestADayOfATreeIsSmall(t *testing.T) {
	t.Parallel()
	const touched = 500
	entries := 50_000
	if faultpoint.All() {
		entries = 200_000
	}
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	rng := rand.New(rand.NewPCG(3, 4))
	list := make([]tree.Entry, entries)
	for i := range list {
		list[i] = tree.Entry{
			Path:   fmt.Sprintf("%02x/%040x", i%256, uint64(i)*0x9e3779b97f4a7c15),
			Domain: fmt.Sprintf("AppDomain-com.example.app%03d", i/1000), Name: fmt.Sprintf("Library/Application Support/a folder/file %08d.plist", i),
			ModTime: tree.AtSecond(int64(i)), Mode: 0o644,
			Stat:   &tree.Stat{Inode: uint64(i), ChangeTime: int64(i) * 1e9},
			Record: &tree.Record{ModTime: int64(i), Sum: rng.Uint64()},
		}
	}
	var took time.Duration // to store a tree
	day := func(parent *repo.Snapshot) *repo.Snapshot {
		w := r.NewWriter(ctx)
		defer w.Close()
		begin := time.Now()
		var old *tree.Outline
		if parent != nil {
			old = r.Outline(ctx, parent)
		}
		b := tree.NewBuilder(w.SaveNode, old)
		for i := range list {
			if err := b.Add(ctx, &list[i]); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.Finish(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s := &repo.Snapshot{Root: root}
		if err := w.Commit(ctx, s); err != nil {
			t.Fatal(err)
		}
		took = time.Since(begin)
		return s
	}
	first := day(nil)
	for range touched {
		e := &list[rng.IntN(entries)]
		e.ModTime, e.Stat, e.Record = tree.AtNanosecond(rng.Int64()), &tree.Stat{Inode: rng.Uint64(), ChangeTime: rng.Int64()}, &tree.Record{ModTime: rng.Int64(), Sum: rng.Uint64()}
	}
	second := day(first)
	t.Logf("the first tree takes %d bytes, %d touched entries of %d another %d in %v", first.StoredBytes, touched, entries, second.StoredBytes, took)
	if second.StoredBytes > 500_000 {
		t.Errorf("%d touched entries cost %d bytes", touched, second.StoredBytes)
	}
	// A fraction of a second on an idle machine; this one may be busy.
	if took > 2*time.Minute {
		t.Errorf("%d touched entries took %v", touched, took)
	}
	n := 0
	err := repotest.MustOpen(t, be).Walk(ctx, second, "", func(e *tree.Entry) error {
		if e.ModTime != list[n].ModTime {
			return fmt.Errorf("entry %d is not what was stored", n)
		}
		n++
		return nil
	})
	if err != nil || n != entries {
		t.Fatalf("%d entries, %v", n, err)
	}
}

// chainDepth returns the depth of a chunk's block, the stored bytes of its chain,
// and whether it can be decoded.
func chainDepth(x *index.Index, id chunk.ID) (depth, stored int, ok bool) {
	w := chain.NewWalk(x)
	depth, ok = w.Depth(id, 0)
	return depth, w.Stored, ok
}
