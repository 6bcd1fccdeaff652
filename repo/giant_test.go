package repo_test

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// storeGiant stores a snapshot with a file of 2^37 chunks that takes some hundred KB: each of
// its lists repeats the list below 1,024 times.
func storeGiant(t *testing.T, r *repo.Repo) *repo.Snapshot {
	t.Helper()
	ctx := t.Context()
	w := r.NewWriter(ctx)
	defer w.Close()
	content := w.NewContentWriter()
	one, err := content.Store(ctx, strings.NewReader(strings.Repeat("x", 1000)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := content.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	c := tree.Content{Size: 1000, IDs: one.IDs}
	const repeat = 1024
	for range tree.MaxListLevel {
		c.Level++
		c.Size *= repeat
		list := binary.AppendUvarint([]byte{1, c.Level}, repeat)
		for range repeat {
			list = append(list, c.IDs[0][:]...)
		}
		id, err := w.SaveNode(ctx, list, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.IDs = []chunk.ID{id}
	}
	c.IDs = slices.Repeat(c.IDs, tree.MaxInline)
	c.Size *= tree.MaxInline
	b := tree.NewBuilder(w.SaveNode, nil)
	for _, path := range []string{"a", "b"} {
		if err := b.Add(ctx, &tree.Entry{Path: path, Kind: tree.File, Mode: 0o600, Content: c}); err != nil {
			t.Fatal(err)
		}
	}
	s := &repo.Snapshot{Time: time.Unix(1.8e9, 0).UTC(), Complete: true, Device: repo.Device{UDID: "giant", Name: "giant"}}
	if s.Root, err = b.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGiantFile checks that a file that is much larger on paper than in the repository keeps
// no command busy.
func TestGiantFile(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	be := memory.New()
	opts := repotest.SmallPacks(9)
	if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, opts); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, repo.LockWrite, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	s := storeGiant(t, r)
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if r, err = repo.Open(ctx, be, repotest.Secret, opts); err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	if rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil || !rep.Clean() {
		t.Errorf("check: %+v, %v", rep, err)
	}
	if _, err := r.Stats(ctx, []*repo.Snapshot{s}); err != nil {
		t.Errorf("stats: %v", err)
	}
	if f, err := r.Find(ctx, s, tree.Key{Path: "a"}); err != nil || f == nil {
		t.Errorf("find: %v", err)
	} else if _, err := r.NewContentReader(ctx, &f.Content); err == nil {
		t.Error("all chunks of the file are in memory")
	}
	if l, err = r.Lock(ctx, repo.LockPrune, "test"); err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if rep, err := r.Prune(ctx, repo.PruneOptions{}); err != nil {
		t.Errorf("prune: %+v, %v", rep, err)
	}
}
