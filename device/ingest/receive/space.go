package receive

import (
	"context"
	"errors"
	"math"
)

const (
	// spaceFactor is the number of bytes that Space reports for each free byte of
	// the store. The device adds up the full sizes of all files, even of files that
	// it does not hold, and does not begin a backup that seems too large. If the store
	// is too small after all, the backup fails later, without harm.
	spaceFactor = 4
	// spaceReserve is kept for index files and records.
	spaceReserve = 64 << 20
	// spaceUnknown is reported for stores that do not know their free space.
	spaceUnknown = 1 << 50
	// spaceMost is the most that is reported. Devices may add to it.
	spaceMost = math.MaxInt64 / 2
)

// Space implements backup2.Folder. It returns a generous estimate of the bytes
// that the store can hold after deduplication and compression. An encrypted
// backup does not become smaller if its password is not known.
func (r *Receiver) Space(ctx context.Context) (int64, error) {
	if r.opts.IgnoreSpace {
		return spaceMost, nil
	}
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
	if free > spaceMost/factor {
		return spaceMost, nil
	}
	return free * factor, nil
}

// Purge implements backup2.Folder. It frees nothing: people decide what a
// repository keeps. A device calls it if it wants more space than Space reports.
func (r *Receiver) Purge(_ context.Context, want int64) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = max(r.wanted, want)
	return 0, nil
}

// Wanted returns the largest number of bytes that the device asked to free, or 0
// if it did not ask.
func (r *Receiver) Wanted() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted
}
