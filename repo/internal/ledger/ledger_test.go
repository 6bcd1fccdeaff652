package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// keys is a source of randomness that is the same for all processes of a test.
type keys struct{ *rand.ChaCha8 }

func testStore(be backend.Backend, process byte) *store.Store {
	opts := store.Options{Rand: keys{rand.NewChaCha8([32]byte{process})}, Now: func() time.Time { return time.Unix(1e9, 0) }}
	return store.New(be, opts.WithDefaults(), store.Config{}, crypto.Key{1})
}

// record stores a snapshot record and returns its entry.
func record(t testing.TB, r *store.Store, n int) *Entry {
	t.Helper()
	file, err := r.SnapshotSealer.Seal([]byte("snapsn01"), fmt.Appendf(nil, `{"version":1,"files":%d}`, n), nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEntry(r, file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := e.File(r)
	if err != nil || string(again) != string(file) {
		t.Fatalf("the file that is made again differs: %v", err)
	}
	return e
}

func read(t testing.TB, r *store.Store) *Ledger {
	t.Helper()
	l, err := Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// existing lists the records that exist according to the ledger.
func existing(l *Ledger) (ids []layout.FileID) {
	for _, e := range l.Existing() {
		ids = append(ids, e.ID)
	}
	return ids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnion(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := memory.New()
	r := testStore(be, 1)
	a, b := record(t, r, 1), record(t, r, 2)
	must(t, read(t, r).Add(ctx, r, a, b))
	must(t, read(t, r).Add(ctx, r, a)) // known already
	must(t, read(t, r).Remove(ctx, r, []layout.FileID{a.ID}))
	must(t, read(t, r).Remove(ctx, r, []layout.FileID{a.ID}))
	l := read(t, r)
	if got := existing(l); !slices.Equal(got, []layout.FileID{b.ID}) || l.Get(a.ID).Exists() || l.Get(layout.FileID{}) != nil {
		t.Errorf("got %v", got)
	}
	if n := len(l.files); n != 2 {
		t.Errorf("%d files", n)
	}
	must(t, l.Add(ctx, r, a)) // another process may have just removed it
	if l = read(t, r); len(existing(l)) != 1 {
		t.Error("a removed record is back")
	}
	must(t, l.Renew(ctx, r, a))
	if l = read(t, r); len(existing(l)) != 2 || string(l.Get(a.ID).JSON) != string(a.JSON) {
		t.Errorf("got %+v", l.Get(a.ID))
	}
}

// Processes that write at the same time, each on the ground of what it read before, never
// lose what another one has entered, in any order.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		be := memory.New()
		r := testStore(be, byte(seed))
		var entries []*Entry
		want := map[layout.FileID]bool{}
		views := make([]*Ledger, 4)
		for i := range 120 {
			v := rng.IntN(len(views))
			if views[v] == nil || rng.IntN(2) == 0 {
				views[v] = read(t, r)
			}
			if i < 4 || rng.IntN(3) > 0 {
				e := record(t, r, i)
				entries, want[e.ID] = append(entries, e), true
				must(t, views[v].Add(ctx, r, e))
			} else {
				id := entries[rng.IntN(len(entries))].ID
				want[id] = false
				must(t, views[v].Remove(ctx, r, []layout.FileID{id}))
			}
		}
		got := map[layout.FileID]bool{}
		l := read(t, r)
		for _, e := range entries {
			got[e.ID] = l.Get(e.ID) != nil && l.Get(e.ID).Exists()
		}
		if !maps.Equal(got, want) || len(l.Damaged) > 0 {
			t.Fatalf("seed %d: %d files; got %v, want %v", seed, len(l.files), got, want)
		}
		if len(l.files) > 2*manyFiles {
			t.Errorf("seed %d: %d files", seed, len(l.files))
		}
	}
}

// TestMergeSurvives interrupts a merge at every step, lets each step fail, and fills the
// disk. The ledger says the same before and after.
func TestMergeSurvives(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := memory.New()
	r := testStore(base, 1)
	var last *Entry
	for i := 0; len(read(t, r).files) < manyFiles; i++ {
		if i%3 == 2 {
			must(t, read(t, r).Remove(ctx, r, []layout.FileID{last.ID}))
			continue
		}
		last = record(t, r, i)
		must(t, read(t, r).Add(ctx, r, last))
	}
	before := existing(read(t, r))
	next := record(t, r, 100)
	merge := func(be backend.Backend, process byte) error {
		r := testStore(be, process)
		l, err := Read(ctx, r)
		if err != nil {
			return err
		}
		return l.Add(ctx, r, next)
	}
	judge := func(be *memory.Backend, done bool) {
		t.Helper()
		r := testStore(be, 50)
		l := read(t, r)
		got := existing(l)
		without := slices.DeleteFunc(slices.Clone(got), func(id layout.FileID) bool { return id == next.ID })
		if !slices.Equal(without, before) || done && len(got) == len(without) || len(l.Damaged) > 0 {
			t.Fatalf("%d records of %d; damaged %v", len(got), len(before)+1, l.Damaged)
		}
		if err := merge(be, 51); err != nil || len(existing(read(t, r))) != len(before)+1 {
			t.Fatal("next run:", err)
		}
	}
	steps := crash.New(base.Clone(), crash.Plan{})
	must(t, merge(steps, 2))
	if steps.Changes() < manyFiles {
		t.Fatalf("%d changes; want a merge", steps.Changes())
	}
	for at := range steps.Changes() {
		for seed := range uint64(2) {
			be := crash.New(base.Clone(), crash.Plan{At: at + 1, Seed: seed})
			err := merge(be, 2)
			judge(be.Reboot(), err == nil)
		}
	}
	for at := range 60 {
		be := base.Clone()
		err := merge(fault.New(be, fault.Once(at+1, fault.ErrInjected)), 2)
		if err != nil && !errors.Is(err, fault.ErrInjected) {
			t.Fatal(err)
		}
		judge(be, err == nil)
	}
	be := base.Clone()
	must(t, merge(fault.New(be, func(c fault.Call) fault.Action {
		if c.Op == fault.Put && c.Size > 1000 {
			return fault.Action{Before: backend.ErrNoSpace}
		}
		return fault.Action{}
	}), 2))
	judge(be, true)
}

// A merge leaves out the oldest removals if there are too many. But as long as a file has a
// copy of a record, it keeps the removal: the record would seem to be lost otherwise.
// appending is a store that refuses to remove files of the ledger, and says so.
type appending struct {
	backend.Backend
	t *testing.T
}

func (appending) AppendOnly() bool { return true }

func (a appending) Delete(_ context.Context, name string) error {
	a.t.Errorf("removed %s", name)
	return errors.New("refused")
}

// A process that may not remove files stores no copies of what stays. The first one that may
// merges the files.
func TestAppendOnlyStores(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := testStore(appending{be, t}, 1)
	const records = 2 * manyFiles
	var size int64
	for i := range records {
		must(t, read(t, r).Add(t.Context(), r, record(t, r, i)))
		must(t, be.List(t.Context(), layout.LedgerDir, func(f backend.Info) error { size = max(size, f.Size); return nil }))
	}
	l := read(t, r)
	if len(l.files) != records || len(existing(l)) != records || size > 1000 {
		t.Errorf("%d files of up to %d bytes have %d records", len(l.files), size, len(existing(l)))
	}
	r = testStore(be, 2)
	must(t, read(t, r).Add(t.Context(), r, record(t, r, records)))
	if l := read(t, r); len(l.files) != 1 || len(existing(l)) != records+1 {
		t.Errorf("%d files have %d records", len(l.files), len(existing(l)))
	}
}

func TestRemovalsAreBounded(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := memory.New()
	r := testStore(be, 1)
	first := record(t, r, 1)
	must(t, read(t, r).Add(ctx, r, first))
	must(t, read(t, r).Remove(ctx, r, []layout.FileID{first.ID}))
	l := read(t, r)
	var many []*Entry
	for i := range maxRemoved + 100 {
		many = append(many, &Entry{ID: layout.FileID{byte(i), byte(i >> 8), 1}, Turn: 1, Removed: uint64(2e9 + i)})
	}
	must(t, l.put(ctx, r, many))
	merge := func() *Ledger {
		for i := range manyFiles {
			must(t, read(t, r).Add(ctx, r, record(t, r, 1000+i)))
		}
		return read(t, r)
	}
	if l = merge(); l.Get(first.ID) == nil || l.Get(first.ID).Exists() {
		t.Error("a removal is gone, and a file has had the record")
	}
	if l = merge(); l.Get(first.ID) != nil || l.Get(many[0].ID) != nil || l.Get(many[len(many)-1].ID) == nil {
		t.Error("want the newest removals only")
	}
	removed := 0
	for _, e := range l.entries {
		if !e.Exists() {
			removed++
		}
	}
	if removed > maxRemoved {
		t.Errorf("%d removals", removed)
	}
}

// A ledger lacks what another one knows to exist, unless it knows the same, or a later removal.
// A merge may have dropped the removal of a record only if there are many later removals.
func TestLacks(t *testing.T) {
	ctx := t.Context()
	r, o := testStore(memory.New(), 1), testStore(memory.New(), 2)
	e := record(t, r, 1)
	lacks := func() bool { return len(read(t, r).Lacks(read(t, o))) > 0 }
	must(t, read(t, o).Add(ctx, o, e))
	if !lacks() {
		t.Error("it knows nothing, and lacks nothing")
	}
	must(t, read(t, r).Add(ctx, r, e))
	if lacks() {
		t.Error("both know it")
	}
	must(t, read(t, r).Remove(ctx, r, []layout.FileID{e.ID}))
	if lacks() {
		t.Error("it was removed")
	}
	must(t, read(t, o).Remove(ctx, o, []layout.FileID{e.ID}))
	must(t, read(t, o).Renew(ctx, o, e))
	if !lacks() {
		t.Error("it came back, and only the other one knows that")
	}
	l := read(t, r)
	for i := range maxRemoved - 1 {
		if l.Dropped(1e9) {
			t.Fatalf("dropped after %d removals", i+1)
		}
		l.count(&Entry{ID: layout.FileID{byte(i), byte(i >> 8), 1}, Turn: 1, Removed: uint64(1e9 + i)})
	}
	if !l.Dropped(1e9) || l.Dropped(1e9+1) {
		t.Error("want that only removals of older records may have been dropped")
	}
}

// merging is a store on which another process merges files while this one reads.
type merging struct {
	*memory.Backend
	after int // the number of reads before
	merge func()
}

func (m *merging) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if m.after--; m.after == 0 {
		m.merge()
	}
	return m.Backend.ReadAt(ctx, name, p, off)
}

func TestReadBesideMerge(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := memory.New()
	r := testStore(base, 1)
	for i := range manyFiles {
		must(t, read(t, r).Add(ctx, r, record(t, r, i)))
	}
	for after := range manyFiles {
		be := base.Clone()
		other := testStore(be, 2)
		m := &merging{Backend: be, after: after + 1, merge: func() { must(t, read(t, other).Add(ctx, other, record(t, other, 77))) }}
		s := testStore(serial{m}, 3)
		if n := len(existing(read(t, s))); n < manyFiles {
			t.Fatalf("a merge after %d reads: %d records", after, n)
		}
	}
}

// serial lets one goroutine read at a time.
type serial struct{ backend.Backend }

func (s serial) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	turn <- struct{}{}
	defer func() { <-turn }()
	return s.Backend.ReadAt(ctx, name, p, off)
}

var turn = make(chan struct{}, 1)

// A file that cannot be used is named, and passed over.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := memory.New()
	r := testStore(be, 1)
	must(t, read(t, r).Add(ctx, r, record(t, r, 1)))
	for _, junk := range [][]byte{nil, []byte(magic), []byte("snapix01 and so on")} {
		if _, err := r.PutNamed(ctx, layout.LedgerDir, junk); err != nil {
			t.Fatal(err)
		}
	}
	newer, err := r.LedgerSealer.Seal([]byte(magic), []byte{9}, nil)
	must(t, err)
	if _, err := r.PutNamed(ctx, layout.LedgerDir, newer); err != nil {
		t.Fatal(err)
	}
	must(t, be.Set(layout.LedgerDir+strings.Repeat("0", 64), []byte("torn")))
	l := read(t, r)
	unsupported := 0
	for _, err := range l.Damaged {
		if errors.Is(err, store.ErrUnsupported) {
			unsupported++
		} else if !errors.Is(err, store.ErrDamaged) {
			t.Error(err)
		}
	}
	if len(l.Damaged) != 5 || unsupported != 1 || len(existing(l)) != 1 {
		t.Errorf("%v; %d records", l.Damaged, len(existing(l)))
	}
}

// Entries that need several files.
func TestManyEntries(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := memory.New()
	r := testStore(be, 1)
	var many []*Entry
	for i := range 18 {
		e := record(t, r, i)
		e.ID[0] = byte(i)
		e.JSON = make([]byte, maxRecord-1)
		many = append(many, e)
	}
	must(t, read(t, r).Add(ctx, r, many...))
	l := read(t, r)
	if len(l.Damaged) > 0 || len(existing(l)) != len(many) || len(l.files) != 2 {
		t.Errorf("%v; %d records in %d files", l.Damaged, len(existing(l)), len(l.files))
	}
}

// A copy of a record that is not the one that it says is never given back.
func TestCopyOfAnotherRecord(t *testing.T) {
	t.Parallel()
	r := testStore(memory.New(), 1)
	e := record(t, r, 1)
	e.JSON = []byte("{}")
	if _, err := e.File(r); err == nil {
		t.Error("no error")
	}
}

func FuzzParse(f *testing.F) {
	r := testStore(memory.New(), 1)
	plain := appendPlain(nil, []*Entry{record(f, r, 1), record(f, r, 2), {ID: layout.FileID{9}, Turn: 3, Removed: 1e9}})
	f.Add(plain)
	compressed, err := pack.Compress(append(plain, make([]byte, 8<<10)...))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(compressed)
	f.Add([]byte("\x01\xff\xff\xff\xff\x0f"))
	f.Add([]byte("\x02\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parse(b)
		if err != nil {
			return
		}
		again, err := parse(appendPlain(nil, entries))
		if err != nil || len(again) != len(entries) {
			t.Fatal(err)
		}
		for i, e := range entries {
			if o := again[i]; o.ID != e.ID || o.Turn != e.Turn || o.Removed != e.Removed || string(o.JSON) != string(e.JSON) || o.head != e.head {
				t.Fatalf("%+v became %+v", e, o)
			}
		}
	})
}
