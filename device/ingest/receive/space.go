package receive

import (
	"context"
	"errors"
	"math"
)

const (
	// spaceFactor is the number of bytes that Space reports for each free byte of
	// the store. The device adds up the full sizes of all files, even of files that
	// are not on it, and does not begin a backup that seems too large. If the store
	// is too small after all, the backup fails later, without harm.
	spaceFactor = 4
	// spaceReserve is kept for index files and records.
	spaceReserve = 64 << 20
	// spaceUnknown is reported for stores that do not know their free space.
	spaceUnknown = 1 << 50
)

// Space implements backup2.Folder. It returns a generous estimate of the bytes
// that the store can hold after deduplication and compression. An encrypted
// backup does not become smaller if its password is not known.
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
