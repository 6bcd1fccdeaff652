package repo_test

import (
	"context"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

func TestSnapshotRecord(t *testing.T) {
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	w := r.NewWriter(ctx)
	if err := w.Commit(ctx, &repo.Snapshot{Problems: []string{strings.Repeat("x", 1<<20)}}); err == nil {
		t.Error("a record that readers refuse was written")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
