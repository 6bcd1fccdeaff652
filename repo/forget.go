package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/repo/backend"
)

// Forget removes the records of snapshots. What only they needed stays until
// the next Prune. That a snapshot is gone already is no error.
func (r *Repo) Forget(ctx context.Context, ids ...FileID) error {
	for _, id := range ids {
		if err := r.be.Delete(ctx, snapshotsDir+id.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("forget snapshot %s: %w", id.Short(), err)
		}
	}
	return nil
}
