package virtual

import (
	"context"
	"errors"
	"math"
)

const (
	// spaceFactor is how many bytes of a backup go into one byte of the store,
	// as far as the device is told. It counts every file in full, also what is
	// not on it at all, and does not begin a backup that seems too large; a
	// store that turns out to be too small is full later, without harm.
	spaceFactor = 4
	// spaceReserve stays for what is no content: index files, records.
	spaceReserve = 64 << 20
	// spaceUnknown is said of stores that do not know.
	spaceUnknown = 1 << 50
)

// Space implements backup2.Folder: what the store can really take, by a
// generous guess of what deduplication and compression make of a backup. A
// sealed backup that cannot be opened does not shrink.
func (n *Run) Space(ctx context.Context) (int64, error) {
	free, err := n.r.Free(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return spaceUnknown, nil
	}
	if err != nil {
		return 0, err
	}
	factor := n.opts.SpaceFactor
	switch {
	case factor > 0:
	case n.opts.Encrypted && n.spool == nil:
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

// Purge implements backup2.Folder. A repository gives no space back while a
// backup runs: what could go, a person has decided to keep.
func (n *Run) Purge(context.Context, int64) (int64, error) { return 0, nil }
