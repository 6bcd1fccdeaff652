package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
)

// Forget removes snapshots. What only they needed stays until the next Prune.
// That a snapshot is gone already is no error.
func (r *Repo) Forget(ctx context.Context, ids ...FileID) error {
	// Who finds a record gone looks again: somebody may have just put another one
	// in its place.
	for range 3 {
		if len(ids) == 0 {
			return nil
		}
		var err error
		if ids, err = r.forget(ctx, ids); err != nil {
			return err
		}
	}
	return nil
}

// forget removes all records of snapshots, and returns those of which one was
// gone already.
func (r *Repo) forget(ctx context.Context, ids []FileID) (gone []FileID, err error) {
	all, err := r.readRecords(ctx)
	if err != nil {
		return nil, err
	}
	// Earlier records of a snapshot go first, or one of them would stand for it
	// again if this were cut off.
	records := slices.Concat(all.superseded, all.current)
	for _, id := range ids {
		origin := id
		for _, s := range records {
			if s.Has(id) {
				origin = s.origin()
			}
		}
		going := []FileID{}
		for _, s := range records {
			if s.origin() == origin {
				going = append(going, s.ID)
			}
		}
		if len(going) == 0 {
			going = []FileID{id} // its record may be damaged
		}
		missed := false
		for _, id := range going {
			err := r.deleteSnapshot(ctx, id)
			if err != nil && !errors.Is(err, backend.ErrNotExist) {
				return nil, fmt.Errorf("forget snapshot %s: %w", id.Short(), err)
			}
			missed = missed || err != nil
		}
		if missed {
			gone = append(gone, id)
		}
	}
	return gone, nil
}
