package repo_test

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// If a file has lost one of its lists of chunks, a prune keeps what the others name. Should
// the list come back, so does the file.
func TestPruneKeepsListsAfterALostOne(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	var left tree.Content // what is left of the file
	err := repotest.Repair(ctx, be, 9, func(r *repo.Repo) error {
		if err := r.LoadIndex(ctx); err != nil {
			return err
		}
		w := r.NewWriter(ctx)
		defer w.Close()
		content := w.NewContentWriter()
		one, err := content.Store(ctx, strings.NewReader(strings.Repeat("x", 1000)), nil)
		if err != nil {
			return err
		}
		if err := content.Flush(ctx); err != nil {
			return err
		}
		save := func(level byte, ids ...chunk.ID) chunk.ID {
			list := binary.AppendUvarint([]byte{1, level}, uint64(len(ids)))
			for _, id := range ids {
				list = append(list, id[:]...)
			}
			id, err := w.SaveNode(ctx, list, nil)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		lost := chunk.ID{1}
		present := save(1, one.IDs[0])
		left = tree.Content{Size: 1000, Level: 1, IDs: []chunk.ID{present}}
		b := tree.NewBuilder(w.SaveNode, nil)
		whole := tree.Content{Size: 3000, Level: 2, IDs: []chunk.ID{lost, save(2, lost, present)}}
		if err := b.Add(ctx, &tree.Entry{Path: "a", Kind: tree.File, Mode: 0o600, Content: whole}); err != nil {
			return err
		}
		s := &repo.Snapshot{Time: time.Unix(1.77e9, 0).UTC(), Complete: true, Device: repo.Device{UDID: "lists", Name: "lists"}}
		if s.Root, err = b.Finish(ctx); err != nil {
			return err
		}
		return w.Commit(ctx, s)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	r := repotest.MustOpen(t, be)
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteContent(ctx, io.Discard, &left); err != nil {
		t.Errorf("what was left of the file is gone: %v", err)
	}
}
