package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/spf13/cobra"
)

// openLocked opens the repository and locks it until the program ends. The caller
// must load the index afterwards, not before.
func (a *app) openLocked(cmd *cobra.Command, kind repo.LockKind) (*repo.Repo, error) {
	ctx := cmd.Context()
	r, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.takeLock(ctx, r, kind, cmd.CommandPath()); err != nil {
		return nil, err
	}
	return r, nil
}

// openToReplace is openLocked for commands that remove what they replace. It fails if the store
// lets this user remove nothing.
func (a *app) openToReplace(cmd *cobra.Command) (*repo.Repo, error) {
	ctx := cmd.Context()
	r, err := a.open(ctx)
	if err == nil {
		err = a.mayReplace()
	}
	if err == nil {
		err = a.takeLock(ctx, r, repo.LockWrite, cmd.CommandPath())
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// openToList is openLocked for commands that read records only. They need no lock, and in a
// store far away, it would take as many requests as all the rest.
func (a *app) openToList(cmd *cobra.Command) (*repo.Repo, error) {
	a.listing = true
	r, err := a.open(cmd.Context())
	if err == nil && !isDistant(a.store) {
		err = a.takeLock(cmd.Context(), r, repo.LockRead, cmd.CommandPath())
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// mayRemove fails if the store of the repository has said that it lets this user remove nothing.
// It would refuse later, after much was read and written in vain, and leave things half done.
func (a *app) mayRemove() error { return a.mayAlso("removed") }

// mayReplace is mayRemove for commands that store something before they remove what it replaces.
func (a *app) mayReplace() error { return a.mayAlso("changed") }

func (a *app) mayAlso(do string) error {
	if backend.IsAppendOnly(a.store) {
		return advised{fmt.Errorf("nothing was %s: %w", do, backend.ErrAppendOnly), "run this command on the server itself, with -r and the folder of the repository there, or as a user of it who may remove files"}
	}
	return nil
}

// isDistant reports whether a repository is in a store far away.
func isDistant(be backend.Backend) bool {
	_, ok := be.(backend.Surveyor)
	return ok
}

// openToRead opens the repository and locks it for reading. It returns the snapshots
// that specs name, and loads an index that lists all their content.
func (a *app) openToRead(cmd *cobra.Command, specs ...string) (*repo.Repo, []*repo.Snapshot, error) {
	r, err := a.openLocked(cmd, repo.LockRead)
	if err != nil {
		return nil, nil, err
	}
	found, damaged, err := r.FindIndexed(cmd.Context(), a.specs(specs)...)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range damaged {
		a.warn("%v; it may be the record of a later snapshot than the one that is used now", err)
	}
	a.warnOfIndex(r, found...)
	return r, found, nil
}

// openAll is openToRead for all snapshots. unread says which records cannot be read.
func (a *app) openAll(cmd *cobra.Command) (r *repo.Repo, list []*repo.Snapshot, unread []error, err error) {
	if r, err = a.openLocked(cmd, repo.LockRead); err != nil {
		return nil, nil, nil, err
	}
	if list, unread, err = r.SnapshotsIndexed(cmd.Context()); err != nil {
		return nil, nil, nil, err
	}
	for _, err := range unread {
		a.warn("%v", err)
	}
	a.warnOfIndex(r, list...)
	return r, list, unread, nil
}

// warnOfRecords names records of snapshots that cannot be read.
func (a *app) warnOfRecords(damaged []error) {
	for _, err := range damaged {
		a.warn("%v; it may be the latest snapshot of the device", err)
	}
}

// warnOfIndex prints the damage that was found in the loaded index, which some snapshots
// need.
func (a *app) warnOfIndex(r *repo.Repo, snapshots ...*repo.Snapshot) {
	for _, err := range r.IndexDamage(snapshots...) {
		a.warn("%v; \"snap check\" shows what is affected", err)
	}
}

// noLockFlag adds a flag to read without a lock.
func (a *app) noLockFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.noLock, "no-lock", false, "read without a lock; a concurrent prune may then remove what is read")
	return cmd
}

// The first and the longest pause between two attempts to lock a repository.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// takeLock locks the repository until the command ends, unless --no-lock is given.
func (a *app) takeLock(ctx context.Context, r *repo.Repo, kind repo.LockKind, what string) (err error) {
	if !a.noLock {
		a.lock, err = a.acquire(ctx, r, kind, what)
	}
	return err
}

// acquire locks a repository. It waits for other processes, at most as long as
// --retry-lock says. If the medium is read-only or full, a reader gets a nil lock and
// continues: nobody removes files from a read-only medium, and a restore from a full
// disk must work.
func (a *app) acquire(ctx context.Context, r *repo.Repo, kind repo.LockKind, what string) (*repo.Lock, error) {
	var deadline time.Time // counts from the first refusal
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		l, err := r.Lock(ctx, kind, what)
		if deadline.IsZero() {
			deadline = time.Now().Add(a.retryLock)
		}
		left := time.Until(deadline)
		switch {
		case err == nil:
			a.warnOfClock(l.Skew())
			if kind != repo.LockRead {
				a.renewKey(ctx, r)
			}
			return l, nil
		case kind == repo.LockRead && backend.IsReadOnly(err):
			a.detail("the repository is read-only; reading it without a lock")
			return nil, nil
		case kind == repo.LockRead && backend.IsNoSpace(err):
			a.warn("no room for a lock; do not prune the repository until this command has ended")
			return nil, nil
		case !errors.Is(err, repo.ErrLocked) || left <= 0:
			return nil, err
		case wait == firstRetry:
			a.remark("%v; waiting for up to %v", err, a.retryLock)
		}
		if err := sleep(ctx, min(wait, left)); err != nil {
			return nil, err
		}
	}
}

// waitForLocks waits until these locks are gone or stale, at most as long as
// --retry-lock says. It reports whether they are.
func (a *app) waitForLocks(ctx context.Context, r *repo.Repo, locks []repo.LockInfo) (bool, error) {
	if a.retryLock <= 0 {
		return false, nil
	}
	a.remark("%s of running commands; waiting for up to %v", plural(len(locks), "lock"), a.retryLock)
	deadline := time.Now().Add(a.retryLock)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		gone, err := r.LocksGone(ctx, locks)
		left := time.Until(deadline)
		if err != nil || gone || left <= 0 {
			return gone, err
		}
		if err := sleep(ctx, min(wait, left)); err != nil {
			return false, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// maxSkew is how much the clocks of this computer and of a repository may differ without
// a warning.
const maxSkew = 5 * time.Minute

// warnOfClock warns if the clock of this computer is wrong, or that of the repository.
func (a *app) warnOfClock(ahead time.Duration) {
	if ahead.Abs() <= maxSkew {
		return
	}
	than := "ahead of"
	if ahead < 0 {
		than = "behind"
	}
	a.warn("the clock of this computer is %s %s that of the disk or server with the repository; set the one that is wrong, since it dates backups", words.Span(ahead.Abs()), than)
}

// releaseLock removes the lock of takeLock. A lock that cannot be removed becomes
// stale.
func (a *app) releaseLock() {
	if err := a.lock.Release(); err != nil {
		a.detail("the lock could not be removed; it becomes stale: %v", err)
	}
	a.lock = nil
}

// warnOfFuture warns if one of all snapshots was stored much later than now: either the
// clock of this computer is behind, or that of another one was ahead.
func (a *app) warnOfFuture(all []*repo.Snapshot) {
	var last *repo.Snapshot
	var when time.Time
	for _, s := range all {
		if stored, ok := s.Future(); ok && stored.After(when) {
			last, when = s, stored
		}
	}
	if last != nil {
		a.warn("the clock of this computer says %s, but snapshot %s of %q was stored at %s by %q: one of the two clocks is wrong; set this one if it is, since it dates backups",
			timeText(a.now()), last.ID.Short(), cmp.Or(last.Device.Name, last.Device.UDID), timeText(when), cmp.Or(last.Host, "an unknown computer"))
	}
}
