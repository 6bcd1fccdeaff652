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

// present notes that the target has a snapshot already.
func (c *copying) present(line *Snapshot, have *record.Snapshot) {
	line.Outcome, line.Copy = Present, &have.ID
	c.report.Present++
	c.report.Snapshots = append(c.report.Snapshots, *line)
}

// copyNow is copyOf, and takes in what others have stored in the target since it
// was looked at. Only records that are new are read.
func (c *copying) copyNow(ctx context.Context, s *record.Snapshot) (*record.Snapshot, error) {
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

// settle leaves one copy of a snapshot where two processes have stored one at the
// same moment: that with the least ID, which both of them know. It returns it.
//
// At least one of the two sees both, since each looks after it has stored. Whoever
// does removes the other one, whosesoever it is, so it does not matter which sees
// it. The least is never removed.
func (c *copying) settle(ctx context.Context, s, mine *record.Snapshot) (*record.Snapshot, error) {
	if _, err := c.copyNow(ctx, s); err != nil {
		return nil, err
	}
	want := origin(c.from, s)
	least := mine
	var others []*record.Snapshot
	for _, o := range c.target {
		// One that has got a tag or a pin since stays as it is.
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
