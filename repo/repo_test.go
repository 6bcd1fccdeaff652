package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

var (
	testSecret = []byte("correct horse")
	testInfo   = crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "test"}
)

// lockedReader is a seeded source of randomness for several goroutines, as
// crypto/rand is one.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// testOptions make everything repeatable: one worker, a seeded source of
// randomness, a clock that advances a minute a look.
func testOptions(seed byte) Options {
	minutes := atomic.Int64{}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return Options{
		Rand:     &lockedReader{r: rand.NewChaCha8([32]byte{seed})},
		Now:      func() time.Time { return start.Add(time.Duration(minutes.Add(1)) * time.Minute) },
		Cost:     crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1},
		Workers:  1,
		PackSize: 256 << 10,
	}
}

func create(t testing.TB, be backend.Backend) *Repo {
	t.Helper()
	r, err := Create(context.Background(), be, testSecret, testInfo, testOptions(1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t testing.TB, be backend.Backend) *Repo {
	t.Helper()
	r, err := Open(context.Background(), be, testSecret, testOptions(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(context.Background()); err != nil {
		t.Fatal(err)
	}
	return r
}

// files is the content of a made-up backup.
type files map[string][]byte

// testFiles makes a day of a backup: mostly small text, some noise, a file
// above every threshold, an empty one. Days share most of it.
func testFiles(day int) files {
	f := files{"Info.plist": fmt.Appendf(nil, "info of day %d", day), "empty": nil}
	for i := range 40 {
		version := 0
		if i%7 == day%7 {
			version = day
		}
		f[fmt.Sprintf("%02x/small%d", i, i)] = bytes.Repeat(fmt.Appendf(nil, "file %d version %d. ", i, version), 20+i*10)
	}
	noise := make([]byte, 1500<<10)
	rand.NewChaCha8([32]byte{9}).Read(noise)
	f["aa/photo"] = noise
	db := append([]byte("SQLite format 3\x00"), bytes.Repeat([]byte("a page of a database. "), 20_000)...)
	copy(db[200_000:], fmt.Appendf(nil, "row of day %d", day))
	f["bb/database"] = db
	return f
}

// store writes a snapshot of f. It returns errors, since tests make it fail.
func store(ctx context.Context, r *Repo, f files, day int) (*Snapshot, error) {
	return storeWithParent(ctx, r, f, day, nil)
}

// storeWithParent writes a snapshot of f that follows another one.
func storeWithParent(ctx context.Context, r *Repo, f files, day int, parent *Snapshot) (*Snapshot, error) {
	s := &Snapshot{
		Time:   time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC),
		Device: Device{UDID: "00008110-000A1234567890AB", Name: "Anna's iPhone"}, Complete: true,
	}
	return s, storeSnapshot(ctx, r, f, s, parent)
}

// storeSnapshot stores files under a record that says whose they are.
func storeSnapshot(ctx context.Context, r *Repo, f files, s, parent *Snapshot) error {
	w := r.NewWriter(ctx)
	defer w.Close()
	if err := storeTree(ctx, r, w, f, s, parent); err != nil {
		return err
	}
	return w.Commit(ctx, s)
}

// storeTree stores files through a writer and notes their tree in a record.
func storeTree(ctx context.Context, r *Repo, w *Writer, f files, s, parent *Snapshot) error {
	before := map[string]*tree.Content{}
	var old *tree.Outline
	if parent != nil {
		old = r.Outline(ctx, parent)
		err := r.Walk(ctx, parent, "", func(e *tree.Entry) error { before[e.Path] = &e.Content; return nil })
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
	}
	lane := w.NewContentWriter()
	b := tree.NewBuilder(w.SaveNode, old)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		c, err := lane.Store(ctx, bytes.NewReader(f[name]), before[name])
		if err != nil {
			return err
		}
		if err := b.Add(ctx, &tree.Entry{Path: name, Mode: 0o644, Content: c}); err != nil {
			return err
		}
		s.Files++
		s.Bytes += c.Size
		// Many blocks make many packs, and so more places for things to fail.
		if c.Size >= 20<<10 {
			if err := lane.Flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := lane.Flush(ctx); err != nil {
		return err
	}
	var err error
	s.Root, err = b.Finish(ctx)
	return err
}

func mustStore(t testing.TB, r *Repo, day int) *Snapshot {
	t.Helper()
	s, err := store(context.Background(), r, testFiles(day), day)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// restore reads a snapshot back.
func restore(ctx context.Context, r *Repo, s *Snapshot) (files, error) {
	f := files{}
	err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
		var b bytes.Buffer
		if err := r.WriteContent(ctx, &b, &e.Content); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		f[e.Path] = b.Bytes()
		return nil
	})
	return f, err
}

// sameFiles compares what came back with what was stored.
func sameFiles(got, want files) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d files, want %d", len(got), len(want))
	}
	for name, b := range want {
		if !bytes.Equal(got[name], b) {
			return fmt.Errorf("%s differs", name)
		}
	}
	return nil
}

// verify checks that the days given, and no others, are there byte for byte
// and that Check finds nothing.
func verify(t testing.TB, be backend.Backend, days ...int) {
	t.Helper()
	ctx := context.Background()
	r := open(t, be)
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	got := []int{}
	for _, s := range list {
		day := s.Time.Day()
		got = append(got, day)
		f, err := restore(ctx, r, s)
		if err == nil {
			err = sameFiles(f, testFiles(day))
		}
		if err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	if !slices.Equal(got, days) {
		t.Fatalf("snapshots of days %v, want %v", got, days)
	}
	report, err := r.Check(ctx, CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() || len(report.Problems) > 0 {
		t.Fatalf("check: %+v, %v", report, err)
	}
}

func TestStoreAndRestore(t *testing.T) {
	be := memory.New()
	r := create(t, be)
	first := mustStore(t, r, 1)
	second := mustStore(t, r, 2)
	third := mustStore(t, open(t, be), 3)
	if second.StoredBytes > first.StoredBytes/3 || third.StoredBytes > first.StoredBytes/3 {
		t.Errorf("days cost %d, %d and %d bytes: nothing was shared", first.StoredBytes, second.StoredBytes, third.StoredBytes)
	}
	verify(t, be, 1, 2, 3)
}

func TestSameContentCostsNothing(t *testing.T) {
	be := memory.New()
	r := create(t, be)
	mustStore(t, r, 1)
	if again := mustStore(t, open(t, be), 1); again.NewChunks != 0 || again.StoredBytes != 0 {
		t.Errorf("the same day again: %d chunks, %d bytes", again.NewChunks, again.StoredBytes)
	}
}

func TestWrongPassword(t *testing.T) {
	be := memory.New()
	create(t, be)
	if _, err := Open(context.Background(), be, []byte("wrong"), testOptions(1)); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(context.Background(), memory.New(), testSecret, testOptions(1)); !errors.Is(err, ErrNotFound) {
		t.Errorf("no repository: got %v", err)
	}
	if _, err := Create(context.Background(), be, testSecret, testInfo, testOptions(1)); !errors.Is(err, ErrExists) {
		t.Errorf("create twice: got %v", err)
	}
}
