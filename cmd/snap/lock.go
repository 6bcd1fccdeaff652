package main

import (
	"context"
	"errors"
	"time"

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

// openToRead opens the repository and locks it for reading. It returns the snapshots
// that specs name, and loads an index that lists all their content.
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

// openAll is openToRead for all snapshots.
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

// warnOfIndex prints the damage that was found in the loaded index.
func (a *app) warnOfIndex(r *repo.Repo) {
	for _, err := range r.IndexDamage() {
		a.warn("%v; \"snap check\" shows what is affected", err)
	}
}

// noLockFlag adds a flag to read without a lock.
func (a *app) noLockFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.noLock, "no-lock", false, "read without a lock; a concurrent prune may then remove what is read")
	return cmd
}

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
		timer := time.NewTimer(min(wait, left))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// releaseLock removes the lock of takeLock. A lock that cannot be removed becomes
// stale.
func (a *app) releaseLock() {
	if err := a.lock.Release(); err != nil {
		a.detail("the lock could not be removed; it becomes stale: %v", err)
	}
	a.lock = nil
}
