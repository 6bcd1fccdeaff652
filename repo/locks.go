package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/lock"
)

// LockKind is what a process does, and so which others may be at work beside
// it.
type LockKind = lock.Kind

// The kinds of locks. Readers, writers and one prune may work at the same time.
const (
	LockRead      = lock.Read
	LockWrite     = lock.Write
	LockPrune     = lock.Prune
	LockExclusive = lock.Exclusive
)

// LockState is what is known of a lock's owner.
type LockState = lock.State

// The states of a lock.
const (
	LockAlive = lock.Alive // its process runs on this machine
	LockDead  = lock.Dead  // its process has ended
	LockStale = lock.Stale // it was not refreshed in time
	LockFresh = lock.Fresh // its process is elsewhere and refreshes it
	LockBad   = lock.Bad   // it is damaged
)

// LockInfo describes a lock in the repository.
type LockInfo = lock.Info

// Lock is this process's lock. A nil Lock is none: its methods do nothing.
type Lock = lock.Lock

// Lock tells others that this process is at work, until Release. what names the
// command for people. It fails with a *LockedError if one is at work that does
// not suffer this one beside it. Locks that were left behind are removed.
//
// Call it before LoadIndex. One lock at a time can be held through a Repo.
func (r *Repo) Lock(ctx context.Context, kind LockKind, what string) (*Lock, error) {
	return lock.Acquire(ctx, r.store, kind, what)
}

// Locks lists the locks in the repository, the oldest first.
func (r *Repo) Locks(ctx context.Context) ([]LockInfo, error) {
	return lock.List(ctx, r.store)
}

// LeftBehind reports whether a lock's process is gone, as far as can be known.
func LeftBehind(l LockInfo) bool {
	return lock.LeftBehind(l)
}

// RemoveLocks removes some locks and returns them. A process whose lock goes
// while it runs notices before its snapshot counts, and fails.
func (r *Repo) RemoveLocks(ctx context.Context, which func(LockInfo) bool) ([]LockInfo, error) {
	return lock.Remove(ctx, r.store, which)
}
