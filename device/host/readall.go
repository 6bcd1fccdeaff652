package host

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// ReadAll reads all content of the snapshot, with several goroutines. It adds the files
// that the repository cannot give back to Damage: it is better to know them before a
// restore begins than in the middle of it. Progress is counted in progress.
func (p *Plan) ReadAll(ctx context.Context, r *repo.Repo, workers int, progress *blob.Progress) error {
	progress.Enter("reading the snapshot")
	progress.TotalFiles.Store(p.Snapshot.Files)
	progress.TotalBytes.Store(p.Snapshot.Bytes)
	var log finding.Log
	read := func(ctx context.Context, e *tree.Entry) error {
		err := r.WriteContent(ctx, io.Discard, &e.Content)
		if err == nil || ctx.Err() != nil || !errors.Is(err, repo.ErrDamaged) {
			progress.Files.Add(1)
			progress.Bytes.Add(e.Content.Size)
			return err
		}
		// If chunks of the file are not in the index, the verification has already named
		// it.
		if present, err := blob.Present(ctx, r, &e.Content, r.Index().Has); err != nil || present {
			log.File(finding.Lost, finding.Name(e.Domain, e.Name, e.Path))
			return err
		}
		return nil
	}
	walk := func(ctx context.Context, fn func(*tree.Entry) error) error { return r.Walk(ctx, p.Snapshot, "", fn) }
	if err := blob.EachFile(ctx, workers, walk, read); err != nil {
		return fmt.Errorf("read snapshot %s: %w", p.Snapshot.ID.Short(), err)
	}
	for _, f := range log.Findings() {
		p.Damage = finding.Merge(p.Damage, f)
	}
	return nil
}
