package repo

import (
	"context"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/process"
)

// What the tests of package repo_test need of the insides.
const (
	ChainFactor    = chainFactor
	MinChain       = minChain
	MaxChainDepth  = maxChainDepth
	MaxLabel       = maxLabel
	MaxTags        = maxTags
	MaxFormer      = maxFormer
	LockStaleAfter = lockStale
	MinReserve     = minReserve
	MaxSecretSize  = maxSecretSize
	AloneSize      = aloneSize
	BlockTarget    = blockTarget
	DeltaTarget    = deltaTarget
	MaxPackSize    = maxPackSize
	MaxIndexSize   = maxIndexSize
)

// ChainDepth returns the depth of a chunk's block, the bytes of its chain, and
// whether it can be decoded.
func ChainDepth(x *index.Index, id chunk.ID) (depth, stored int, ok bool) {
	w := newChainWalk(x)
	depth, ok = w.depth(id, 0)
	return depth, w.stored, ok
}

// AddChunk adds a chunk as it is, without cutting it.
func AddChunk(ctx context.Context, w *ContentWriter, b []byte) (chunk.ID, error) {
	return w.add(ctx, b, 0, nil)
}

// SealSnapshot returns the file of a snapshot's record.
func SealSnapshot(r *Repo, s *Snapshot) ([]byte, error) { return r.sealSnapshot(s) }

// CacheHeld returns how many bytes the cache of decoded blocks holds.
func CacheHeld(r *Repo) int { return r.cache.held() }

// PacksLastRead returns of how many packs the checks know when they were read.
func PacksLastRead(ctx context.Context, r *Repo) (int, error) {
	times, err := r.readTimes(ctx)
	if err != nil {
		return 0, err
	}
	return len(times.last), nil
}

// LeaveLock stores a lock of another process.
func LeaveLock(ctx context.Context, r *Repo, kind LockKind, owner process.Identity, refreshed time.Time) (FileID, error) {
	return r.putLock(ctx, lockBody{
		Version: lockVersion, Session: "other", Kind: kind, What: "other", Owner: owner, Since: refreshed, Refreshed: refreshed,
	})
}

// LockGone reports whether a lock in this state may be removed.
func LockGone(s LockState) bool { return s.gone() }

// LockID returns the file of a lock.
func LockID(l *Lock) FileID { return l.id }

// LockSeen returns the prune lists that the owner of a lock has read.
func LockSeen(l LockInfo) []FileID { return l.seen }

// RefreshLock refreshes a lock, as its owner does from time to time.
func RefreshLock(ctx context.Context, l *Lock) error { return l.refresh(ctx) }

// LockHeld returns an error if a lock was lost.
func LockHeld(ctx context.Context, l *Lock) error { return l.held(ctx) }

// PutPruneList stores a prune list.
func PutPruneList(ctx context.Context, r *Repo, packs []FileID) (FileID, error) {
	l, err := r.putPruneList(ctx, packs)
	return l.ID, err
}

// PruneLists returns the packs of each prune list.
func PruneLists(ctx context.Context, r *Repo) (lists [][]FileID, err error) {
	all, err := r.pruneLists(ctx)
	for _, l := range all {
		lists = append(lists, l.Packs)
	}
	return lists, err
}
