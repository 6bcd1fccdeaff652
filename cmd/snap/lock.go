package main

import (
	"context"
	"errors"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/spf13/cobra"
)

// openLocked opens the repository and tells others that this command is at work
// in it, until the program ends. The lock comes before the index is read.
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

// openToRead opens the repository, locked for a reader, with the snapshots that
// specs mean and the index that has what they need.
func (a *app) openToRead(cmd *cobra.Command, specs ...string) (*repo.Repo, []*repo.Snapshot, error) {
	r, err := a.openLocked(cmd, repo.LockRead)
	if err != nil {
		return nil, nil, err
	}
	found, err := r.FindIndexed(cmd.Context(), specs...)
	if err != nil {
		return nil, nil, err
	}
	a.warnOfIndex(r)
	return r, found, nil
}

// openAll is openToRead with all snapshots.
func (a *app) openAll(cmd *cobra.Command) (*repo.Repo, []*repo.Snapshot, error) {
	r, err := a.openLocked(cmd, repo.LockRead)
	if err != nil {
		return nil, nil, err
	}
	list, damaged, err := r.SnapshotsIndexed(cmd.Context())
	if err != nil {
		return nil, nil, err
	}
	for _, err := range damaged {
		a.warn("%v", err)
	}
	a.warnOfIndex(r)
	return r, list, nil
}

// warnOfIndex tells what is wrong with the index that was loaded.
func (a *app) warnOfIndex(r *repo.Repo) {
	for _, err := range r.IndexDamage() {
		a.warn("%v; \"snap check\" tells what that means", err)
	}
}

// noLockFlag lets a command that only reads go without a lock.
func (a *app) noLockFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.noLock, "no-lock", false, "do not tell others that the repository is being read; a prune may then remove what is read")
	return cmd
}

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// takeLock locks the repository until the command ends, unless it only reads and
// --no-lock is given.
func (a *app) takeLock(ctx context.Context, r *repo.Repo, kind repo.LockKind, what string) (err error) {
	if !a.noLock {
		a.lock, err = a.acquire(ctx, r, kind, what)
	}
	return err
}

// acquire locks a repository. It waits for others as long as --retry-lock says.
// Whoever only reads goes on without a lock, which is nil then, where none can be
// written: on a medium that takes no writes nobody else removes anything, and on
// a full disk a backup must come back all the same.
func (a *app) acquire(ctx context.Context, r *repo.Repo, kind repo.LockKind, what string) (*repo.Lock, error) {
	var deadline time.Time // from the first refusal on: that may take its time
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		l, err := r.Lock(ctx, kind, what)
		if deadline.IsZero() {
			deadline = time.Now().Add(a.retryLock)
		}
		left := time.Until(deadline)
		switch {
		case err == nil:
			return l, nil
		case kind == repo.LockRead && backend.IsReadOnly(err):
			a.detail("the repository cannot be written to, so nobody is told that it is being read")
			return nil, nil
		case kind == repo.LockRead && backend.IsNoSpace(err):
			a.warn("there is no room to lock the repository; do not prune it until this command has ended")
			return nil, nil
		case !errors.Is(err, repo.ErrLocked) || left <= 0:
			return nil, err
		case wait == firstRetry:
			a.remark("%v; waiting for up to %v", err, a.retryLock)
		}
		timer := time.NewTimer(min(wait, left))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// releaseLock ends what takeLock has begun. What it cannot remove is recognised
// as left behind later.
func (a *app) releaseLock() {
	if err := a.lock.Release(); err != nil {
		a.detail("the lock could not be removed, which does no harm: %v", err)
	}
	a.lock = nil
}
