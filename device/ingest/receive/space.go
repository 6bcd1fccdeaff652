package receive

import (
	"context"
	"errors"
	"math"
)

const (
	// spaceFactor is how many bytes of a backup Space reports for each free byte
	// of the store. The device counts every file in full, even those that are
	// not on it, and does not begin a backup that seems too large. If the store
	// is too small after all, the backup fails later, without harm.
	spaceFactor = 4
	// spaceReserve is kept for index files and records.
	spaceReserve = 64 << 20
	// spaceUnknown is reported for stores that do not know their free space.
	spaceUnknown = 1 << 50
)

// Space implements backup2.Folder. It returns what the store can hold by a
// generous estimate of deduplication and compression. An encrypted backup without
// a password does not shrink.
func (r *Receiver) Space(ctx context.Context) (int64, error) {
	free, err := r.repo.Free(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return spaceUnknown, nil
	}
	if err != nil {
		return 0, err
	}
	factor := r.opts.SpaceFactor
	switch {
	case factor > 0:
	case r.opts.Encrypted && r.spool == nil:
		factor = 1
	default:
		factor = spaceFactor
	}
	free = max(free-spaceReserve, 0)
	if free > math.MaxInt64/2/factor {
		return math.MaxInt64 / 2, nil
	}
	return free * factor, nil
}

// Purge implements backup2.Folder. It frees nothing: people decide what a
// repository keeps.
func (r *Receiver) Purge(context.Context, int64) (int64, error) { return 0, nil }
