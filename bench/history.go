package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
)

// addHistory adds snapshots to every repository after day 0, without measuring. All of
// them have the content of day 0. So the later steps show what a long history costs.
func (b *bench) addHistory(ctx context.Context) error {
	if b.conf.history == 0 {
		return nil
	}
	return b.eachRepo(func(r *toolRepo) error {
		b.logf("%s: %d more snapshots", r.tool.name, b.conf.history)
		if r.tool.history != nil {
			return r.tool.history(ctx, r.repo, b.conf.history)
		}
		for i := range b.conf.history {
			p := r.params(b.devices[i%len(b.devices)], 0)
			p.label, p.before = fmt.Sprintf("history%d", i), label(0)
			if _, _, err := r.tool.command(r.tool.store(p), p, b.backups).measure(ctx); err != nil {
				return fmt.Errorf("%s: snapshot %d of the history: %w", r.tool.name, i, err)
			}
		}
		return nil
	})
}

// snapHistory copies the records of the snapshots in a repository of snap. A process for
// each of 10,000 snapshots would take an hour.
func snapHistory(ctx context.Context, dir string, n int) (err error) {
	be, err := local.Open(dir)
	if err != nil {
		return err
	}
	r, err := repo.Open(ctx, be, []byte(secret), repo.Options{})
	if err != nil {
		return err
	}
	lock, err := r.Lock(ctx, repo.LockWrite, "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if err := r.LoadIndex(ctx); err != nil {
		return err
	}
	originals, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 {
		return errors.Join(append(damaged, err)...)
	}
	if len(originals) == 0 {
		return errors.New("no snapshot to copy")
	}
	for i := range n {
		s := *originals[i%len(originals)]
		// Older than the original, which stays the newest: the next import compares with it.
		s.Time = s.Time.Add(-time.Duration(i+1) * time.Hour)
		s.Tags = []string{"history"}
		if err := r.NewWriter(ctx).Commit(ctx, &s); err != nil {
			return err
		}
	}
	return nil
}
