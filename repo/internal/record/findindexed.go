package record

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/store"
)

// FindIndexed finds snapshots and loads the index, as repo.Repo.FindIndexed
// describes.
func FindIndexed(ctx context.Context, r *store.Store, specs ...string) ([]*Snapshot, error) {
	found := make([]*Snapshot, 0, len(specs))
	for _, spec := range specs {
		s, err := FindSnapshot(ctx, r, spec)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, r.LoadIndex(ctx)
}

// ListIndexed calls List, then loads the index, as FindIndexed does.
func ListIndexed(ctx context.Context, r *store.Store) (list []*Snapshot, damaged []error, err error) {
	if list, damaged, err = List(ctx, r); err != nil {
		return nil, nil, err
	}
	return list, damaged, r.LoadIndex(ctx)
}
