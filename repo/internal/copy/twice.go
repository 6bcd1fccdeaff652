package copy

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

// present reports that the target has a snapshot already.
func (c *copying) present(line *Snapshot, have *record.Snapshot) {
	line.Outcome, line.Copy = Present, &have.ID
	c.report.Present++
	c.report.Snapshots = append(c.report.Snapshots, *line)
}

// currentCopyOf calls copyOf after reading the records that other processes have
// stored in the target since the target was last listed.
func (c *copying) currentCopyOf(ctx context.Context, s *record.Snapshot) (*record.Snapshot, error) {
	err := c.to.Backend.List(ctx, layout.SnapshotsDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil || c.seen[id] {
			return nil
		}
		c.seen[id] = true
		o, err := record.Load(ctx, c.to, id)
		switch {
		case errors.Is(err, store.ErrDamaged), errors.Is(err, backend.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		c.target = append(c.target, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	return c.copyOf(s), nil
}

// removeDuplicates removes all copies but one if several processes have copied a
// snapshot at the same time. It keeps and returns the copy with the least ID.
//
// Each process lists the target after storing its copy, so at least one of them
// sees all copies. This process removes all but the copy with the least ID, no
// matter which process stored them. All processes keep that copy, so it stays.
func (c *copying) removeDuplicates(ctx context.Context, s, copied *record.Snapshot) (*record.Snapshot, error) {
	if _, err := c.currentCopyOf(ctx, s); err != nil {
		return nil, err
	}
	want := origin(c.from, s)
	least := copied
	var others []*record.Snapshot
	for _, o := range c.target {
		// Keep a copy whose labels were changed since.
		if o.CopiedFrom == nil || *o.CopiedFrom != want || o.Original != nil {
			continue
		}
		others = append(others, o)
		if o.ID.String() < least.ID.String() {
			least = o
		}
	}
	for _, o := range others {
		if o.ID == least.ID {
			continue
		}
		if err := record.Delete(ctx, c.to, o.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return nil, fmt.Errorf("target: remove the second copy %s: %w", o.ID.Short(), err)
		}
	}
	return least, nil
}
