// Package lock keeps processes that would harm each other from using a repository
// at the same time.
//
// A process finds out if its lock was removed. The package never waits for another
// process.
package lock

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

const (
	lockMagic   = "snaplk01"
	lockVersion = 1
	maxLockSize = 1 << 20
	// StaleAfter is the age at which a lock counts as stale if nothing is known
	// about its process. If the process still runs without its lock, it makes no
	// snapshot; see Lock.held.
	StaleAfter = 30 * time.Minute
	// releaseTime bounds how long Release takes.
	releaseTime = 30 * time.Second
)

// Kind is what a process does with the repository. It decides which other processes
// may use the repository at the same time.
type Kind string

// The kinds of locks. Readers, writers and one prune may work at the same time.
const (
	Read      Kind = "read"
	Write     Kind = "write"
	Prune     Kind = "prune"
	Exclusive Kind = "exclusive"
)

func (k Kind) conflicts(o Kind) bool {
	return k == Exclusive || o == Exclusive || k == Prune && o == Prune
}

// LockedError describes the lock that excludes this process. It matches ErrLocked.
type LockedError struct{ Lock Info }

func (e *LockedError) Error() string {
	l := e.Lock
	if l.State == Bad {
		return fmt.Sprintf("the repository has a damaged lock, %s", l.ID.Short())
	}
	state := "that process is running"
	if l.State != Alive {
		state = "it last refreshed its lock at " + l.Refreshed.Local().Format(time.TimeOnly)
	}
	return fmt.Sprintf("the repository is locked by %q, process %d of %s on %s, running since %s; %s",
		l.What, l.Owner.PID, l.Owner.User, l.Owner.Host, l.Since.Local().Format(time.DateTime), state)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == store.ErrLocked }

// lockBody is the sealed part of a lock file.
type lockBody struct {
	Version   int              `json:"version"`
	Session   string           `json:"session"` // names the lock through all its refreshes
	Kind      Kind             `json:"kind"`
	What      string           `json:"what"`
	Owner     process.Identity `json:"owner"`
	Since     time.Time        `json:"since"`
	Refreshed time.Time        `json:"refreshed"`
	// Seen are the prune lists that the process has read. It relies on none of
	// their packs.
	Seen []layout.FileID `json:"seen,omitempty"`
}

// Lock is the lock of this process. The methods of a nil Lock do nothing.
type Lock struct {
	r    *store.Store
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	body lockBody
	id   layout.FileID
	last *layout.FileID // the file before id, which stays until the next refresh
	lost bool
}

// Acquire locks a repository, as repo.Repo.Lock describes.
func Acquire(ctx context.Context, r *store.Store, kind Kind, what string) (*Lock, error) {
	if r.Guard != nil {
		return nil, errors.New("lock: this process holds one already")
	}
	var session [16]byte
	if _, err := io.ReadFull(r.Options.Rand, session[:]); err != nil {
		return nil, err
	}
	now := r.Options.Now().UTC()
	l := &Lock{r: r, done: make(chan struct{}), body: lockBody{
		Version: lockVersion, Session: hex.EncodeToString(session[:]), Kind: kind, What: what,
		Owner: *r.Options.Owner, Since: now, Refreshed: now,
	}}
	var err error
	if l.id, err = putLock(ctx, r, l.body); err != nil {
		return nil, fmt.Errorf("lock the repository: %w", err)
	}
	// List only after storing this lock: if two processes begin at once, at least
	// one of them sees the other's lock.
	locks, err := List(ctx, r)
	if err != nil {
		_ = l.remove(ctx)
		return nil, err
	}
	for _, o := range locks {
		switch {
		case o.session == l.body.Session:
		case o.State.gone():
			if err := deleteLock(ctx, r, o); err != nil {
				_ = l.remove(ctx)
				return nil, fmt.Errorf("remove a stale lock: %w", err)
			}
		case o.State == Bad && (kind == Prune || kind == Exclusive), o.State != Bad && kind.conflicts(o.Kind):
			_ = l.remove(ctx)
			return nil, &LockedError{o}
		}
	}
	r.Guard = &store.Guard{Kind: string(kind), Session: l.body.Session, Held: l.held, See: l.see}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.keep(inner)
	return l, nil
}

// keep refreshes the lock until it is released. It ignores failures, since several
// refreshes follow before the lock counts as stale.
func (l *Lock) keep(ctx context.Context) {
	defer close(l.done)
	if l.r.Options.Refresh < 0 {
		return
	}
	tick := time.NewTicker(l.r.Options.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = l.refresh(ctx)
		}
	}
}

// refresh replaces the lock by a newer one.
func (l *Lock) refresh(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renew(ctx)
}

// renew is refresh for a caller that holds l.mu.
func (l *Lock) renew(ctx context.Context) error {
	if err := l.stillHeld(ctx); err != nil {
		return err
	}
	body := l.body
	body.Refreshed = l.r.Options.Now().UTC()
	id, err := putLock(ctx, l.r, body)
	if err != nil {
		return fmt.Errorf("refresh the lock: %w", err)
	}
	if id == l.id {
		return nil
	}
	// Keep the last file and remove the one before it. Otherwise a listing made at
	// the same time could show none of the lock's files.
	oldest := l.last
	last := l.id
	l.body, l.id, l.last = body, id, &last
	if oldest == nil {
		return nil
	}
	switch err := l.r.Backend.Delete(ctx, layout.LocksDir+oldest.String()); {
	case errors.Is(err, backend.ErrNotExist):
		l.lost = true // another process has removed the lock
		_ = l.remove(ctx)
		return store.ErrLockLost
	case err != nil:
		return fmt.Errorf("refresh the lock: %w", err)
	}
	return nil
}

// see notes that the process has read prune lists.
func (l *Lock) see(ctx context.Context, lists []layout.FileID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(l.body.Seen, lists) {
		return nil
	}
	l.body.Seen = lists
	return l.renew(ctx)
}

// held returns nil if no process has removed the lock.
func (l *Lock) held(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stillHeld(ctx)
}

// stillHeld is held for a caller that holds l.mu.
func (l *Lock) stillHeld(ctx context.Context) error {
	if l.lost {
		return store.ErrLockLost
	}
	for _, id := range l.files() {
		_, err := l.r.Backend.Stat(ctx, layout.LocksDir+id.String())
		if errors.Is(err, backend.ErrNotExist) {
			l.lost = true
			_ = l.remove(ctx)
			return store.ErrLockLost
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// files returns the IDs of the lock's files. A process that removes the lock may
// have seen only one of them.
func (l *Lock) files() []layout.FileID {
	if l.last == nil {
		return []layout.FileID{l.id}
	}
	return []layout.FileID{*l.last, l.id}
}

// Release removes the lock, even if the context that it was made with has ended.
// An error can be ignored, since a lock that stays becomes stale.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	l.r.Guard = nil
	return l.remove(ctx)
}

// remove deletes the lock's files.
func (l *Lock) remove(ctx context.Context) error {
	var all error
	for _, id := range l.files() {
		err := l.r.Backend.Delete(context.WithoutCancel(ctx), layout.LocksDir+id.String())
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

func putLock(ctx context.Context, r *store.Store, body lockBody) (layout.FileID, error) {
	plain, err := json.Marshal(body)
	if err != nil {
		return layout.FileID{}, err
	}
	b, err := r.LockSealer.Seal([]byte(lockMagic), plain, nil)
	if err != nil {
		return layout.FileID{}, err
	}
	return r.PutNamed(ctx, layout.LocksDir, b)
}
