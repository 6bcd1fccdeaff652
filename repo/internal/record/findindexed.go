package record

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/store"
)

// FindIndexed finds the snapshots that specs mean, as FindSnapshot does, and
// loads the index afterwards. In this order the index has what they need,
// however many backups end in between: packs and index files are there before
// the snapshot that needs them. The other way round a snapshot that is stored
// after the index was read would look damaged.
//
// A process that is to be safe from a prune has locked the repository before.
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

// ListIndexed is Snapshots, and loads the index afterwards, as FindIndexed
// does.
func ListIndexed(ctx context.Context, r *store.Store) (list []*Snapshot, damaged []error, err error) {
	if list, damaged, err = List(ctx, r); err != nil {
		return nil, nil, err
	}
	return list, damaged, r.LoadIndex(ctx)
}
