package copy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

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
	return c.keepLeast(ctx, copied, c.unchangedCopies(s))
}

// removeEqual removes all copies but one if the target has several records of the same
// copy. This happens if the record of the copy could not be read for a while. Then the
// snapshot was copied again: it was not known which snapshot the unreadable record is
// about, and a copy should not fail because of it. The second copy cost little, since its
// content was already there. When the first record can be read again, one of the two is
// removed.
func (c *copying) removeEqual(ctx context.Context, s, have *record.Snapshot) (*record.Snapshot, error) {
	equal := slices.DeleteFunc(c.unchangedCopies(s), func(o *record.Snapshot) bool { return o.Root != have.Root })
	if c.opts.DryRun || !slices.Contains(equal, have) {
		return have, nil
	}
	return c.keepLeast(ctx, have, equal)
}

// unchangedCopies returns the target's copies of a snapshot, without those whose labels
// were changed since.
func (c *copying) unchangedCopies(s *record.Snapshot) (copies []*record.Snapshot) {
	want := origin(c.from, s)
	for _, o := range c.target {
		if o.CopiedFrom != nil && *o.CopiedFrom == want && o.Original == nil {
			copies = append(copies, o)
		}
	}
	return copies
}

// keepLeast removes all copies but the one with the least ID, which it returns.
func (c *copying) keepLeast(ctx context.Context, least *record.Snapshot, copies []*record.Snapshot) (*record.Snapshot, error) {
	for _, o := range copies {
		if o.ID.String() < least.ID.String() {
			least = o
		}
	}
	for _, o := range copies {
		if o.ID == least.ID {
			continue
		}
		if err := record.Delete(ctx, c.to, o.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return nil, fmt.Errorf("target: remove the second copy %s: %w", o.ID.Short(), err)
		}
		c.target = slices.DeleteFunc(c.target, func(t *record.Snapshot) bool { return t.ID == o.ID })
	}
	return least, nil
}
