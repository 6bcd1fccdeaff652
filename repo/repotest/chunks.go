package repotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// Versions returns n slightly different versions of a chunk.
func Versions(n int) [][]byte {
	var out [][]byte
	for i := range n {
		v := Noise(5, 8<<10)
		copy(v[i*100:], fmt.Appendf(nil, "version %d", i))
		out = append(out, v)
	}
	return out
}

// CommitChunks makes a snapshot with one file for each chunk.
func CommitChunks(t testing.TB, be backend.Backend, day int, chunks ...[]byte) repo.FileID {
	t.Helper()
	ctx := context.Background()
	r := MustOpen(t, be)
	w := r.NewWriter(ctx)
	defer w.Close()
	b := tree.NewBuilder(w.SaveNode, nil)
	for i, c := range chunks {
		e := tree.Entry{Path: fmt.Sprintf("file%03d", i), Content: tree.Content{Size: int64(len(c)), IDs: []chunk.ID{r.NewHasher().ID(c)}}}
		if err := b.Add(ctx, &e); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish(ctx)
	s := &repo.Snapshot{Root: root, Time: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
	if err == nil {
		err = w.Commit(ctx, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// ReadChunks reads chunks and returns the first error. The test fails if that is
// not ErrDamaged.
func ReadChunks(t testing.TB, r *repo.Repo, chunks ...[]byte) error {
	t.Helper()
	for i, c := range chunks {
		got, err := r.Chunk(context.Background(), r.NewHasher().ID(c))
		switch {
		case err == nil && !bytes.Equal(got, c):
			t.Fatalf("chunk %d: wrong bytes", i)
		case err != nil && !errors.Is(err, repo.ErrDamaged):
			t.Fatalf("chunk %d: the error is not ErrDamaged: %v", i, err)
		case err != nil:
			return err
		}
	}
	return nil
}

// CountAffected returns how many snapshots cannot be restored. Check must report
// exactly these.
func CountAffected(t testing.TB, be backend.Backend) int {
	t.Helper()
	ctx := context.Background()
	r := MustOpen(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	failed := map[repo.FileID]bool{}
	for _, s := range list {
		if _, err := Restore(ctx, r, s); err != nil {
			failed[s.ID] = true
		}
	}
	report, err := MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Affected {
		if !failed[s.Snapshot] {
			t.Errorf("check reports snapshot %s as damaged, but it can be restored", s.Snapshot.Short())
		}
	}
	if len(report.Affected) != len(failed) || report.Clean() && len(failed) > 0 {
		t.Errorf("%d snapshots cannot be restored; check reports %+v", len(failed), report)
	}
	for _, p := range report.Problems {
		if p.File == "" {
			t.Errorf("a problem without a file: %+v", p)
		}
	}
	return len(failed)
}

// CountDeltas returns how many blocks are deltas.
func CountDeltas(r *repo.Repo) int {
	n := 0
	for _, p := range r.Index().Packs() {
		for _, ref := range p.Blocks {
			if _, dict := r.Index().Dependencies(ref); len(dict) > 0 {
				n++
			}
		}
	}
	return n
}

// Depth returns the depth of the block that a chunk is in.
func Depth(t testing.TB, r *repo.Repo, id chunk.ID) int {
	t.Helper()
	loc, ok := r.Index().Lookup(id)
	if !ok {
		t.Fatalf("chunk %s cannot be decoded", id.Short())
	}
	depth := 0
	_, dict := r.Index().Dependencies(loc.Block)
	for _, base := range dict {
		depth = max(depth, 1+Depth(t, r, base))
	}
	return depth
}
