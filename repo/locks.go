package repo

import (
	"context"

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
	LockAlive = lock.Alive // its process runs on this machine
	LockDead  = lock.Dead  // its process has ended
	LockStale = lock.Stale // it was not refreshed in time
	LockFresh = lock.Fresh // its process is elsewhere and refreshes it
	LockBad   = lock.Bad   // it is damaged
)

// LockInfo describes a lock of the repository.
type LockInfo = lock.Info

// Lock is the lock of this process. The methods of a nil Lock do nothing.
type Lock = lock.Lock

// Lock locks the repository until Release. what is the command, for people. It
// fails with a *LockedError if another process holds a lock that excludes this
// one. It removes stale locks.
//
// Call it before LoadIndex. A Repo can hold one lock at a time.
func (r *Repo) Lock(ctx context.Context, kind LockKind, what string) (*Lock, error) {
	return lock.Acquire(ctx, r.store, kind, what)
}

// Locks lists the locks of the repository, the oldest first.
func (r *Repo) Locks(ctx context.Context) ([]LockInfo, error) {
	return lock.List(ctx, r.store)
}

// LeftBehind reports whether a lock is stale: its process is known or assumed to
// have ended.
func LeftBehind(l LockInfo) bool {
	return lock.LeftBehind(l)
}

// RemoveLocks removes the locks that the function which selects, and returns them.
// A process that still runs without its lock fails, and removes a snapshot that it
// has just stored.
func (r *Repo) RemoveLocks(ctx context.Context, which func(LockInfo) bool) ([]LockInfo, error) {
	return lock.Remove(ctx, r.store, which)
}
