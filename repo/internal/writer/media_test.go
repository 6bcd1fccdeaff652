package writer_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// TestMediaKeepTheirCuts stores a film whose earlier version was cut by content, as all
// films once were, and one without an earlier version. In both cases the next version
// needs only the chunk that has changed.
func TestMediaKeepTheirCuts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	store := func(data []byte, prev *tree.Content) (tree.Content, repo.WriteStats) {
		t.Helper()
		w := r.NewWriter(ctx)
		defer w.Close()
		cw := w.NewContentWriter()
		c, err := cw.Store(ctx, bytes.NewReader(data), prev)
		if err == nil {
			err = cw.Flush(ctx)
		}
		if err == nil {
			err = w.Finish(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, w.Stats()
	}
	const size = 12*chunk.MediaSize + 5
	film := repotest.Noise(1, size)
	old, _ := store(film, nil) // cut by content, since it has no magic
	copy(film, "\x00\x00\x00\x14ftypqt  ")
	if got, stats := store(film, &old); stats.Chunks != 1 || len(got.IDs) != len(old.IDs) {
		t.Errorf("a film that was cut by content: %d new chunks of %d, it had %d", stats.Chunks, len(got.IDs), len(old.IDs))
	}
	first, stats := store(film, nil)
	if stats.Chunks != 13 || len(first.IDs) != 13 {
		t.Errorf("a new film: %d new chunks of %d", stats.Chunks, len(first.IDs))
	}
	film[5*chunk.MediaSize]++
	if got, stats := store(film, &first); stats.Chunks != 1 || len(got.IDs) != 13 {
		t.Errorf("a film that was cut at fixed places: %d new chunks of %d", stats.Chunks, len(got.IDs))
	}
}
