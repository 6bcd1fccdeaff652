package writer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// roundTrip stores files, restores them with another Repo, and checks.
func roundTrip(t *testing.T, f repotest.Files) (*repo.Repo, *repo.Snapshot) {
	t.Helper()
	ctx := context.Background()
	be := memory.New()
	repotest.Create(t, be)
	s, err := repotest.Store(ctx, repotest.MustOpen(t, be), f, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := repotest.MustOpen(t, be)
	got, err := repotest.Restore(ctx, r, s)
	if err == nil {
		err = got.Same(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() || len(report.Unreferenced) > 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
	return r, s
}

func TestSizesAtEveryEdge(t *testing.T) {
	t.Parallel()
	f := repotest.Files{}
	for _, edge := range []int{0, 1, chunk.SQLiteSize, writer.AloneSize, chunk.MinSize, writer.BlockTarget, 2 * writer.BlockTarget} {
		for d := -1; d <= 1; d++ {
			if n := edge + d; n >= 0 {
				f[fmt.Sprintf("noise%d", n)] = repotest.Noise(uint64(n), n)
				f[fmt.Sprintf("text%d", n)] = bytes.Repeat([]byte("text "), n/5+1)[:n]
				if db := append([]byte("SQLite format 3\x00"), repotest.Noise(uint64(n+1), n)...); n >= 16 {
					f[fmt.Sprintf("sqlite%d", n)] = db[:n]
				}
			}
		}
	}
	roundTrip(t, f)
}

func TestLargestChunk(t *testing.T) {
	t.Parallel()
	// Content without boundaries is cut into chunks of the greatest length.
	roundTrip(t, repotest.Files{"zeros": make([]byte, 2*chunk.MaxSize+1), "zero": make([]byte, chunk.MaxSize)})
}

// A database with more chunks than fit into an entry has lists. One level of
// them holds at most 64 * 1024 IDs.
func TestContentLists(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var b bytes.Buffer
	b.WriteString("SQLite format 3\x00")
	for i := 0; b.Len() < (tree.MaxInline+40)*chunk.SQLiteSize; i++ {
		fmt.Fprintf(&b, "page %d ", i)
		b.Write(make([]byte, 4000))
	}
	db := b.Bytes()
	inline := db[:tree.MaxInline*chunk.SQLiteSize]
	f := repotest.Files{"db": db, "inline": inline, "one more": db[:len(inline)+1]}
	r, s := roundTrip(t, f)
	levels := map[string]uint8{}
	err := r.Walk(ctx, s, "", func(e *tree.Entry) error { levels[e.Path] = e.Content.Level; return nil })
	if err != nil || levels["inline"] != 0 || levels["one more"] != 1 || levels["db"] != 1 {
		t.Errorf("%v, %v", levels, err)
	}
}

// The content repeats a few short chunks, so it has very many chunks and costs
// nothing to store.
func TestContentListsOfTwoLevels(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	repotest.Create(t, be)
	r := repotest.MustOpen(t, be)
	w := r.NewWriter(ctx)
	defer w.Close()
	cw := w.NewContentWriter()
	var ids []chunk.ID
	for i := range 300 {
		id, err := cw.AddChunk(ctx, fmt.Appendf(nil, "%d.", i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := cw.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	var all []chunk.ID
	want := int64(0)
	for i := range 70_000 {
		n := i * i % 293
		all = append(all, ids[n])
		want += int64(len(fmt.Sprint(n)) + 1)
	}
	c, err := tree.NewContent(ctx, w.SaveNode, want, all)
	if err != nil || c.Level < 2 {
		t.Fatalf("level %d, %v", c.Level, err)
	}
	b := tree.NewBuilder(w.SaveNode, nil)
	s := &repo.Snapshot{}
	if err := b.Add(ctx, &tree.Entry{Path: "long", Content: c}); err != nil {
		t.Fatal(err)
	}
	if s.Root, err = b.Finish(ctx); err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	r = repotest.MustOpen(t, be)
	n := new(counter)
	if err := r.WriteContent(ctx, n, &c); err != nil || int64(*n) != want {
		t.Errorf("%d of %d bytes: %v", *n, want, err)
	}
	// A size that differs from that of the chunks is damage.
	for _, size := range []int64{want - 1, want + 1} {
		wrong := c
		wrong.Size = size
		if err := r.WriteContent(ctx, io.Discard, &wrong); err == nil {
			t.Errorf("%d bytes were returned for %d", want, size)
		}
	}
}

// Lists that repeat each other promise 2^36 chunks for a file of a few bytes. A
// reader must not read them all.
func TestListsThatRepeatEachOther(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	repotest.Create(t, be)
	r := repotest.MustOpen(t, be)
	w := r.NewWriter(ctx)
	defer w.Close()
	cw := w.NewContentWriter()
	id, err := cw.AddChunk(ctx, []byte("piece"))
	if err == nil {
		err = cw.Flush(ctx)
	}
	for level := byte(1); level <= 3 && err == nil; level++ {
		list := append([]byte{1, level}, 0x80, 0x08) // 1,024
		for range 1024 {
			list = append(list, id[:]...)
		}
		id, err = w.SaveNode(ctx, list, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := tree.NewBuilder(w.SaveNode, nil)
	c := tree.Content{Size: 20, Level: 3, IDs: slices.Repeat([]chunk.ID{id}, tree.MaxInline)}
	s := &repo.Snapshot{}
	if err = b.Add(ctx, &tree.Entry{Path: "bomb", Content: c}); err == nil {
		s.Root, err = b.Finish(ctx)
	}
	if err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	r = repotest.MustOpen(t, be)
	var out bytes.Buffer
	if err := r.WriteContent(ctx, &out, &c); !errors.Is(err, repo.ErrDamaged) || out.Len() > 20 {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	if n := repotest.CountAffected(t, be); n != 1 {
		t.Errorf("%d snapshots are affected", n)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// Very many tiny files share few blocks and make long headers. No pack and no
// index file may exceed what a reader accepts.
func TestManyTinyFiles(t *testing.T) {
	t.Parallel()
	f := repotest.Files{}
	n := 5_000
	if faultpoint.All() {
		n = 20_000
	}
	for i := range n {
		f[fmt.Sprintf("%02x/f%d", i%256, i)] = fmt.Appendf(nil, "%d", i)
	}
	r, s := roundTrip(t, f)
	if s.StoredBytes > 4<<20 {
		t.Errorf("%d tiny files took %d bytes", n, s.StoredBytes)
	}
	for _, p := range r.Index().Packs() {
		if int(p.Size) > repotest.Options(0).PackSize+writer.DeltaTarget {
			t.Errorf("a %s pack of %d bytes", p.Kind, p.Size)
		}
	}
}

// Headers grow with the number of chunks, not with their size.
func TestPacksStayWithinTheLimits(t *testing.T) {
	t.Parallel()
	b := pack.NewBuilder(pack.Content, nil)
	chunks := make([]pack.Chunk, pack.MaxBlockChunks)
	for i := range chunks {
		chunks[i] = pack.Chunk{ID: chunk.ID{byte(i), byte(i >> 8)}, Length: 100}
	}
	n := 0
	for b.Fits(1000, len(chunks), store.MaxPackSize) {
		b.Add(make([]byte, 1000), pack.Block{Encoding: pack.Zstd, Chunks: chunks})
		n++
	}
	file, h, err := b.Finish(repotest.Sealer(t, repotest.New(t), crypto.ForPacks))
	if err != nil || n < 2 {
		t.Fatalf("%d blocks: %v", n, err)
	}
	if len(file) > pack.MaxSize/2 {
		t.Errorf("a pack of %d bytes", len(file))
	}
	var f index.File
	for f.Size() < indexfile.MaxSize {
		f.Add(pack.Name(file), int64(len(file)), &h)
	}
	if f.Size() > index.MaxFileSize/2 {
		t.Errorf("an index file of %d bytes", f.Size())
	}
}

func TestEmptySnapshot(t *testing.T) {
	t.Parallel()
	_, s := roundTrip(t, repotest.Files{})
	if s.Files != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
}
