package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/lock"
)

// LockKind is what a process does with the repository. It decides which other
// processes may use the repository at the same time.
type LockKind = lock.Kind

// The kinds of locks. Readers, writers and one prune may work at the same time.
const (
	LockRead      = lock.Read
	LockWrite     = lock.Write
	LockPrune     = lock.Prune
	LockExclusive = lock.Exclusive
)

// LockState is what is known about the process that holds a lock.
type LockState = lock.State

// The states of a lock.
const (
	LockAlive   = lock.Alive   // its process runs on this machine
	LockDead    = lock.Dead    // its process has ended
	LockStale   = lock.Stale   // it was not refreshed in time
	LockFresh   = lock.Fresh   // its process is elsewhere and refreshes it
	LockUnknown = lock.Unknown // its process is elsewhere, and no clock tells whether it refreshes it
	LockBad     = lock.Bad     // it is damaged
)

// LockInfo describes a lock of the repository.
type LockInfo = lock.Info

// Lock is the lock of this process. The methods of a nil Lock do nothing.
type Lock = lock.Lock

// Lock locks the repository until Release. Lock removes locks of processes that have
// ended, and stale locks that exclude this one. It fails with a
// *LockedError if another process holds a lock that excludes this one. what names
// the command in messages.
//
// LockWrite and LockPrune also store a copy of config, if there is none.
//
// Call it before LoadIndex. A Repo can hold one lock at a time.
func (r *Repo) Lock(ctx context.Context, kind LockKind, what string) (*Lock, error) {
	l, err := lock.Acquire(ctx, r.store, kind, what)
	if err == nil {
		if err = access.Confirm(ctx, r.store); err != nil {
			_ = l.Release()
			return nil, err
		}
	}
	if err == nil && (kind == LockWrite || kind == LockPrune) {
		_ = access.KeepConfig(ctx, r.store) // without a copy, the repository works as well
	}
	return l, err
}

// Locks lists the locks of the repository, the oldest first. It may store a lock for a
// moment, to learn what time it is by the clock of the store.
func (r *Repo) Locks(ctx context.Context) ([]LockInfo, error) {
	return lock.List(ctx, r.store)
}

// LocksGone reports whether all of these locks have been released or are stale.
func (r *Repo) LocksGone(ctx context.Context, locks []LockInfo) (bool, error) {
	return lock.Gone(ctx, r.store, locks)
}

// LeftBehind reports whether a lock is stale: its process is known or assumed to
// have ended.
func LeftBehind(l LockInfo) bool {
	return lock.LeftBehind(l)
}

// RemoveLocks removes the locks for which match returns true, and returns them.
// A process that still runs without its lock fails, and removes a snapshot that it
// has just stored.
func (r *Repo) RemoveLocks(ctx context.Context, match func(LockInfo) bool) ([]LockInfo, error) {
	return lock.Remove(ctx, r.store, match)
}
