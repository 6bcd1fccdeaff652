package tree

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"pgregory.net/rapid"
)

// store stores chunks in a map.
type store map[chunk.ID][]byte

func (s store) save(_ context.Context, b []byte, _ *chunk.ID) (chunk.ID, error) {
	id := chunk.ID(sha256.Sum256(b))
	s[id] = append([]byte(nil), b...)
	return id, nil
}

func (s store) load(_ context.Context, id chunk.ID) ([]byte, error) {
	b, ok := s[id]
	if !ok {
		return nil, errors.New("no such chunk")
	}
	return b, nil
}

func (s store) bytes() (n int) {
	for _, b := range s {
		n += len(b)
	}
	return n
}

func testID(n int) chunk.ID {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func genTime(t *rapid.T) Time {
	return Time{rapid.OneOf(rapid.Int64(), rapid.Int64Range(-1<<34, 1<<34)).Draw(t, "seconds"), rapid.Uint32Max(nanoseconds-1).Draw(t, "nanoseconds")}
}

func genEntry(t *rapid.T) Entry {
	e := Entry{
		Path:    rapid.StringMatching(`[a-c]{1,3}(/[a-z]{1,4}){0,2}`).Draw(t, "path"),
		Mode:    rapid.Uint32().Draw(t, "mode"),
		ModTime: genTime(t),
	}
	if rapid.Bool().Draw(t, "named") {
		e.Domain = rapid.SampledFrom([]string{"HomeDomain", "AppDomain-a.b-c", "CameraRollDomain"}).Draw(t, "domain")
		e.Name = rapid.String().Draw(t, "name")
	}
	if rapid.Bool().Draw(t, "stat") {
		e.Stat = &Stat{Inode: rapid.Uint64().Draw(t, "inode"), ChangeTime: rapid.Int64().Draw(t, "ctime")}
	}
	if rapid.Bool().Draw(t, "source") {
		e.Record = &Record{ModTime: rapid.Int64().Draw(t, "source mtime"), Sum: rapid.Uint64().Draw(t, "sum")}
	}
	if rapid.Bool().Draw(t, "dir") {
		e.Kind = Dir
		return e
	}
	if rapid.Bool().Draw(t, "sealed") {
		e.Encryption = &Encryption{Cipher: CBC, Key: FileKey(testID(rapid.Int().Draw(t, "key")))}
	}
	for range rapid.IntRange(0, 5).Draw(t, "ids") {
		e.Content.IDs = append(e.Content.IDs, testID(rapid.Int().Draw(t, "id")))
	}
	if n := len(e.Content.IDs); n > 0 {
		e.Content.Size = rapid.Int64Range(1, 1<<50).Draw(t, "size")
		e.Content.Level = rapid.Uint8Range(0, MaxListLevel).Draw(t, "level")
	}
	return e
}

func sorted(entries []Entry) []Entry {
	slices.SortFunc(entries, func(a, b Entry) int { return a.Key().Compare(b.Key()) })
	return slices.CompactFunc(entries, func(a, b Entry) bool { return a.Key() == b.Key() })
}

func build(t interface{ Fatal(...any) }, s store, entries []Entry) chunk.ID {
	b := NewBuilder(s.save, nil)
	for i := range entries {
		if err := b.Add(context.Background(), &entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func collect(t interface{ Fatal(...any) }, s store, root chunk.ID, domain string) []Entry {
	var out []Entry
	err := WalkDomain(context.Background(), s.load, root, domain, func(e *Entry) error { out = append(out, *e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		entries := sorted(rapid.SliceOf(rapid.Custom(genEntry)).Draw(t, "entries"))
		s := store{}
		root := build(t, s, entries)
		if got := collect(t, s, root, ""); !reflect.DeepEqual(got, entries) && len(entries) > 0 {
			t.Fatalf("got %+v\nwant %+v", got, entries)
		}
		for i := range entries {
			e, err := Find(context.Background(), s.load, root, entries[i].Key())
			if err != nil || !reflect.DeepEqual(e, &entries[i]) {
				t.Fatalf("find %q: %+v, %v", entries[i].Key(), e, err)
			}
			off := entries[i].Key()
			off.Path += "!"
			if e, err := Find(context.Background(), s.load, root, off); e != nil || err != nil {
				t.Fatalf("find %q: %+v, %v", off, e, err)
			}
		}
		for _, d := range []string{"HomeDomain", "AppDomain-a.b-c", "Nothing"} {
			var want []Entry
			for _, e := range entries {
				if e.Domain == d {
					want = append(want, e)
				}
			}
			if got := collect(t, s, root, d); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: got %+v\nwant %+v", d, got, want)
			}
		}
	})
}

func many(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		sum := sha256.Sum256(fmt.Append(nil, i))
		entries[i] = Entry{
			Path:    fmt.Sprintf("%x/%x", sum[:1], sum[:20]),
			Domain:  fmt.Sprintf("AppDomain-com.example.app%d", i/500),
			Name:    fmt.Sprintf("Library/Application Support/things/%08d.plist", i),
			ModTime: AtSecond(int64(i)), Mode: 0o644,
			Stat:    &Stat{Inode: uint64(i), ChangeTime: int64(i)},
			Record:  &Record{ModTime: int64(i), Sum: uint64(i)},
			Content: Content{Size: 5000, IDs: []chunk.ID{testID(i)}},
		}
	}
	return sorted(entries)
}

// TestLocalChanges checks that a change only changes the nodes on its path to the root,
// and that equal entries make equal trees.
func TestLocalChanges(t *testing.T) {
	t.Parallel()
	const n = 50_000
	s := store{}
	entries := many(n)
	root := build(t, s, entries)
	if again := build(t, s, entries); again != root {
		t.Fatal("the same entries made another tree")
	}
	nodes := len(s)
	for name, change := range map[string]func([]Entry) []Entry{
		"changed":  func(e []Entry) []Entry { e[n/2].Content.IDs = []chunk.ID{testID(-1)}; return e },
		"removed":  func(e []Entry) []Entry { return slices.Delete(e, n/3, n/3+1) },
		"inserted": func(e []Entry) []Entry { x := e[n/3]; x.Name += "x"; x.Path += "x"; return slices.Insert(e, n/3+1, x) },
	} {
		before := len(s)
		build(t, s, change(slices.Clone(entries)))
		if fresh := len(s) - before; fresh > 8 {
			t.Errorf("%s: %d new nodes of %d", name, fresh, nodes)
		}
	}
	if avg := n / nodes; avg < 32 || avg > 128 {
		t.Errorf("%d nodes for %d entries", nodes, n)
	}
}

func TestAddRequiresOrder(t *testing.T) {
	t.Parallel()
	b := NewBuilder(store{}.save, nil)
	ctx := context.Background()
	if err := b.Add(ctx, &Entry{Path: "b"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"b", "a"} {
		if err := b.Add(ctx, &Entry{Path: p}); err == nil {
			t.Errorf("%q after b was accepted", p)
		}
	}
}

func TestBadEntriesAreRefused(t *testing.T) {
	t.Parallel()
	ids := []chunk.ID{testID(1)}
	for name, e := range map[string]Entry{
		"no path":              {},
		"absolute":             {Path: "/etc/passwd"},
		"upwards":              {Path: "a/../../b"},
		"dot":                  {Path: "./a"},
		"double slash":         {Path: "a//b"},
		"NUL":                  {Path: "a\x00b"},
		"long":                 {Path: string(make([]byte, MaxPath+1))},
		"kind":                 {Path: "a", Kind: 9},
		"negative size":        {Path: "a", Content: Content{Size: -1, IDs: ids}},
		"size without content": {Path: "a", Content: Content{Size: 1}},
		"content without size": {Path: "a", Content: Content{IDs: ids}},
		"folder with content":  {Path: "a", Kind: Dir, Content: Content{Size: 1, IDs: ids}},
		"unknown cipher":       {Path: "a", Encryption: &Encryption{Cipher: 9}},
		"deep lists":           {Path: "a", Content: Content{Size: 1, Level: MaxListLevel + 1, IDs: ids}},
		"many IDs":             {Path: "a", Content: Content{Size: 1, IDs: make([]chunk.ID, MaxInline+1)}},
	} {
		if err := NewBuilder(store{}.save, nil).Add(context.Background(), &e); err == nil {
			t.Errorf("%s: accepted", name)
		}
		// A reader refuses such entries as well.
		if _, err := ParseNode((&Node{Entries: []Entry{e}}).encode()); !errors.Is(err, ErrDamaged) {
			if name != "kind" && name != "folder with content" { // not expressible in a node
				t.Errorf("%s: read with %v", name, err)
			}
		}
	}
}

func TestCraftedPathsAddNoLevels(t *testing.T) {
	t.Parallel()
	if ends(0, leafBits) {
		t.Error("a hash of zero ends nodes")
	}
}

func TestContentLists(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, n := range []int{0, 1, MaxInline, MaxInline + 1, 1000, 100_000} {
		s := store{}
		ids := make([]chunk.ID, n)
		for i := range ids {
			ids[i] = testID(i)
		}
		c, err := NewContent(ctx, s.save, int64(n), ids)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.IDs) > MaxInline {
			t.Fatalf("%d IDs in the entry", len(c.IDs))
		}
		lists, got := 0, []chunk.ID{}
		err = c.All(ctx, s.load, func(chunk.ID) error { lists++; return nil }, func(id chunk.ID) error { got = append(got, id); return nil })
		if err != nil || !slices.Equal(got, ids) {
			t.Fatalf("%d chunks were read as %d, %v", n, len(got), err)
		}
		got = got[:0]
		err = c.Chunks(ctx, s.load, func(id chunk.ID) error { got = append(got, id); return nil })
		if err != nil || !slices.Equal(got, ids) {
			t.Fatalf("%d chunks are %d in order, %v", n, len(got), err)
		}
		if lists != len(s) {
			t.Errorf("%d lists visited, %d stored", lists, len(s))
		}
		if n < 1000 {
			continue
		}
		before := s.bytes()
		ids[n/2] = testID(-1)
		if _, err := NewContent(ctx, s.save, int64(n), ids); err != nil {
			t.Fatal(err)
		}
		if fresh := s.bytes() - before; fresh > 200_000 {
			t.Errorf("one changed chunk of %d cost %d bytes of lists", n, fresh)
		}
	}
}

func TestMissingAndWrongNodes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := store{}
	root := build(t, s, many(5000))
	top, err := LoadNode(ctx, s.load, root)
	if err != nil {
		t.Fatal(err)
	}
	leaf := top.Children[1].ID
	// A node that refers to a root cannot make a loop: Walk finds that both have the
	// same level.
	n, _ := LoadNode(ctx, s.load, root)
	n.Children[0].ID = root
	looped, _ := s.save(ctx, n.encode(), nil)
	var nodeErr *NodeError
	if err := Walk(ctx, s.load, looped, func(*Entry) error { return nil }); !errors.As(err, &nodeErr) || !errors.Is(err, ErrDamaged) {
		t.Errorf("a loop: got %v", err)
	}
	delete(s, leaf)
	if err := Walk(ctx, s.load, root, func(*Entry) error { return nil }); !errors.As(err, &nodeErr) || nodeErr.ID != leaf {
		t.Errorf("a missing leaf: got %v", err)
	}
}

// TestRepeatedLists reads a content whose lists repeat each other 2^30 times.
func TestRepeatedLists(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := store{}
	loads := 0
	load := func(ctx context.Context, id chunk.ID) ([]byte, error) { loads++; return s.load(ctx, id) }
	c := Content{IDs: []chunk.ID{testID(1)}}
	for range MaxListLevel {
		c.Level++
		list := slices.Repeat(c.IDs, maxList)
		if c.Level == 1 {
			list[0] = testID(2)
		}
		id, err := s.save(ctx, encodeList(c.Level, list), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.IDs = []chunk.ID{id}
	}
	chunks, lists := map[chunk.ID]int{}, 0
	err := c.All(ctx, load, func(chunk.ID) error { lists++; return nil }, func(id chunk.ID) error { chunks[id]++; return nil })
	if err != nil || lists != 3 || loads != 3 || chunks[testID(1)] != maxList-1 || chunks[testID(2)] != 1 {
		t.Errorf("%d lists, %d loads, chunks %v, %v", lists, loads, chunks, err)
	}
	for each, want := range map[int64]int64{1: 1 << 30, 1 << 20: 1 << 50, 1 << 40: math.MaxInt64} {
		loads = 0
		if got, err := c.Measure(ctx, load, func(chunk.ID) (int64, error) { return each, nil }); got != want || err != nil || loads != 3 {
			t.Errorf("chunks of %d bytes: %d bytes, %v, %d loads", each, got, err, loads)
		}
	}
	// A list that the caller knows is not read.
	loads = 0
	if err := c.All(ctx, load, func(chunk.ID) error { return ErrSkipList }, nil); err != nil || loads != 0 {
		t.Errorf("%v, %d loads", err, loads)
	}
}

// TestRepeatedNodes reads a tree whose nodes repeat each other 2^14 times and more.
func TestRepeatedNodes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := store{}
	id := build(t, s, []Entry{{Path: "a", Kind: Dir}})
	for level := range uint8(MaxHeight - 1) {
		n := &Node{Level: level + 1}
		for i := range 4 {
			n.Children = append(n.Children, Child{ID: id, First: Key{Path: string(rune('a' + i))}, Entries: 1})
		}
		var err error
		if id, err = s.save(ctx, n.encode(), nil); err != nil {
			t.Fatal(err)
		}
	}
	entries := 0
	if err := Walk(ctx, s.load, id, func(*Entry) error { entries++; return nil }); !errors.Is(err, ErrDamaged) || entries != 1 {
		t.Errorf("%d entries, %v", entries, err)
	}
	if err := WalkLeaves(ctx, s.load, id, func(chunk.ID, *Node) error { entries++; return nil }); !errors.Is(err, ErrDamaged) || entries != 2 {
		t.Errorf("%d entries, %v", entries, err)
	}
}

func FuzzParseNode(f *testing.F) {
	entries := many(3)
	f.Add((&Node{Entries: entries}).encode())
	f.Add((&Node{Entries: []Entry{{Path: "00", Kind: Dir}}}).encode())
	f.Add((&Node{Entries: []Entry{{Path: "00", Kind: Dir, ModTime: Time{13_569_465_600, 1}}}}).encode())
	f.Add((&Node{Level: 1, Children: []Child{{ID: testID(1), First: entries[0].Key(), Entries: 5}}}).encode())
	f.Add(encodeList(1, []chunk.ID{testID(1)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseList(b, 1); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("untyped error %v", err)
		}
		n, err := ParseNode(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := ParseNode(n.encode())
		if err != nil || !reflect.DeepEqual(n, again) {
			t.Fatalf("%+v was read as %+v, %v", n, again, err)
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	entries := many(100_000)
	for b.Loop() {
		build(b, store{}, entries)
	}
}
