package lock

import (
	"context"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Unexported parts that the tests of package lock_test need.

// LockGone reports whether a lock in this state may be removed.
func LockGone(s State) bool { return s.gone() }

// LockID returns the file of a lock.
func LockID(l *Lock) layout.FileID { return l.id }

// LockSeen returns the prune lists that the owner of a lock has read.
func LockSeen(l Info) []layout.FileID { return l.seen }

// RefreshLock refreshes a lock, as its owner does from time to time.
func RefreshLock(ctx context.Context, l *Lock) error { return l.refresh(ctx) }

// LockHeld returns an error if a lock was lost.
func LockHeld(ctx context.Context, l *Lock) error { return l.held(ctx) }

// LeaveLock stores a lock of another process.
func LeaveLock(ctx context.Context, r *store.Store, kind Kind, owner process.Identity, refreshed time.Time) (layout.FileID, error) {
	return putLock(ctx, r, lockBody{
		Version: lockVersion, Session: "other", Kind: kind, What: "other", Owner: owner, Since: refreshed, Refreshed: refreshed,
	})
}
