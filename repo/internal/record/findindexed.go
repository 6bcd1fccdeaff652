package record

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/store"
)

// FindIndexed finds snapshots and loads the index, as repo.Repo.FindIndexed
// describes.
func FindIndexed(ctx context.Context, r *store.Store, specs ...string) (found []*Snapshot, damaged []error, err error) {
	found = make([]*Snapshot, 0, len(specs))
	for _, spec := range specs {
		s, bad, err := findSnapshot(ctx, r, spec)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, s)
		if len(bad) > 0 {
			damaged = bad // the same list for each spec
		}
	}
	return found, damaged, r.LoadIndex(ctx)
}

// ListIndexed calls List, then loads the index, as FindIndexed does.
func ListIndexed(ctx context.Context, r *store.Store) (list []*Snapshot, damaged []error, err error) {
	if list, damaged, err = List(ctx, r); err != nil {
		return nil, nil, err
	}
	return list, damaged, r.LoadIndex(ctx)
}
