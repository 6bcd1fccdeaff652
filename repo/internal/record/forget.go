package record

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Forget removes snapshots. What only they needed stays until the next Prune.
// That a snapshot is gone already is no error.
func Forget(ctx context.Context, r *store.Store, ids ...layout.FileID) error {
	// Who finds a record gone looks again: somebody may have just put another one
	// in its place.
	for range 3 {
		if len(ids) == 0 {
			return nil
		}
		var err error
		if ids, err = forget(ctx, r, ids); err != nil {
			return err
		}
	}
	return nil
}

// forget removes all records of snapshots, and returns those of which one was
// gone already.
func forget(ctx context.Context, r *store.Store, ids []layout.FileID) (gone []layout.FileID, err error) {
	all, err := ReadAll(ctx, r)
	if err != nil {
		return nil, err
	}
	// Earlier records of a snapshot go first, or one of them would stand for it
	// again if this were cut off.
	records := slices.Concat(all.Superseded, all.Current)
	for _, id := range ids {
		origin := id
		for _, s := range records {
			if s.Has(id) {
				origin = s.FirstID()
			}
		}
		going := []layout.FileID{}
		for _, s := range records {
			if s.FirstID() == origin {
				going = append(going, s.ID)
			}
		}
		if len(going) == 0 {
			going = []layout.FileID{id} // its record may be damaged
		}
		missed := false
		for _, id := range going {
			err := Delete(ctx, r, id)
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
