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
	// about its process; see judge. If the process still runs without its lock, it
	// makes no snapshot; see Lock.held.
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
	if e.Lock.State == Bad {
		return "the repository has " + e.Lock.Holder()
	}
	return "the repository is locked by " + e.Lock.Holder()
}

// Holder says which process holds a lock, and what is known about it.
func (i *Info) Holder() string {
	state := "it last refreshed its lock at " + i.Refreshed.Local().Format(time.TimeOnly)
	switch i.State {
	case Bad:
		return "a damaged lock, " + i.ID.Short()
	case Alive:
		state = "that process is running"
	case Unknown:
		state = "no clock tells whether it is still running"
	}
	return fmt.Sprintf("%q, process %d of %s on %s, running since %s; %s",
		i.What, i.Owner.PID, i.Owner.User, i.Owner.Host, i.Since.Local().Format(time.DateTime), state)
}

// Hint says how to go on.
func (e *LockedError) Hint() string {
	if e.Lock.State != Bad && e.Lock.State != Unknown {
		return `nothing was changed; wait, for example with --retry-lock 10m, or see "snap unlock"`
	}
	return "nothing was changed; " + e.Lock.Advice()
}

// Advice says how to get rid of a lock of which nobody knows whether its process runs.
func (i *Info) Advice() string {
	return fmt.Sprintf("--retry-lock 35m waits until the lock counts as stale, unless its process refreshes it; "+
		"if no other snap uses the repository, \"snap unlock %s\" removes the lock at once", i.ID.Short())
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
	Count     int              `json:"count,omitempty"` // of refreshes
	// Seen are the prune lists that the process has read. It relies on none of
	// their packs.
	Seen []layout.FileID `json:"seen,omitempty"`
}

// Lock is the lock of this process. The methods of a nil Lock do nothing.
type Lock struct {
	r    *store.Store
	stop context.CancelFunc
	done chan struct{}
	skew time.Duration

	mu   sync.Mutex
	body lockBody
	id   layout.FileID
	last *layout.FileID // the file before id, which stays until the next refresh
	lost bool
	// stuck are earlier files that could not be removed. Whether they are still there says
	// nothing about the lock.
	stuck []layout.FileID
}

// Acquire locks a repository, as repo.Repo.Lock describes.
func Acquire(ctx context.Context, r *store.Store, kind Kind, what string) (*Lock, error) {
	if r.Guard != nil {
		return nil, errors.New("lock: this process holds one already")
	}
	body, err := newBody(r, kind, what)
	if err != nil {
		return nil, err
	}
	l := &Lock{r: r, done: make(chan struct{}), body: body}
	before := r.Options.Now()
	if l.id, err = putLock(ctx, r, l.body); err != nil {
		return nil, fmt.Errorf("lock the repository: %w", err)
	}
	after := r.Options.Now()
	if s, ok := r.Backend.(backend.Surveyor); ok {
		if err := s.Survey(ctx); err != nil {
			_ = l.remove(ctx)
			return nil, fmt.Errorf("lock the repository: %w", err)
		}
	}
	// List only after storing this lock: if two processes begin at once, at least
	// one of them sees the other's lock.
	locks, err := list(ctx, r, l.body.Session)
	if err != nil {
		_ = l.remove(ctx)
		return nil, err
	}
	if !slices.ContainsFunc(locks, func(o Info) bool { return o.ID == l.id || o.session == l.body.Session }) {
		err := l.unseen(ctx)
		_ = l.remove(ctx)
		return nil, fmt.Errorf("lock the repository: %w", err)
	}
	for _, o := range locks {
		switch {
		case o.ID == l.id && o.session == "": // its own file, which cannot be read
		case o.session == l.body.Session:
			l.skew = skew(before, after, o.modified)
		case o.State == Dead, o.State == Stale && (o.excludes(kind) || kind == Prune):
			if err := deleteLock(ctx, r, o); err != nil {
				_ = l.remove(ctx)
				return nil, fmt.Errorf("remove a stale lock: %w", err)
			}
		case o.State != Stale && o.excludes(kind):
			_ = l.remove(ctx)
			return nil, &LockedError{o}
		}
	}
	r.Guard = &store.Guard{Kind: string(kind), Session: l.body.Session, Held: l.held, See: l.noteSeen}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.keepFresh(inner)
	return l, nil
}

// ErrListsLate says that a store does not list what was just put. Then two processes may not
// see each other's locks, and a prune may remove what a backup relies on.
var ErrListsLate = errors.New("the store does not list a file that was just put, so it cannot be shared safely (use a store whose listings are up to date, as those of Amazon S3 are)")

// unseen returns why a listing does not show this lock: the store lists late, or another process
// has removed the lock.
func (l *Lock) unseen(ctx context.Context) error {
	if err := l.stillHeld(ctx); err != nil {
		return err
	}
	return ErrListsLate
}

// newBody returns the content of a new lock of this process.
func newBody(r *store.Store, kind Kind, what string) (lockBody, error) {
	var session [16]byte
	_, err := io.ReadFull(r.Options.Rand, session[:])
	now := r.Options.Now().UTC()
	return lockBody{
		Version: lockVersion, Session: hex.EncodeToString(session[:]), Kind: kind, What: what,
		Owner: *r.Options.Owner, Since: now, Refreshed: now,
	}, err
}

// excludes reports whether a lock keeps other processes from holding a lock of kind k. A
// damaged lock could be of any kind.
func (i *Info) excludes(k Kind) bool {
	if i.Kind == "" {
		return k == Prune || k == Exclusive
	}
	return k.conflicts(i.Kind)
}

// Skew returns how much the clock of this host is ahead of the store's. It is 0 if the
// store does not tell the time.
func (l *Lock) Skew() time.Duration {
	if l == nil {
		return 0
	}
	return l.skew
}

// keepFresh refreshes the lock until it is released. It ignores failures, since several
// refreshes follow before the lock counts as stale.
func (l *Lock) keepFresh(ctx context.Context) {
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

// renew does what refresh does. The caller holds l.mu.
func (l *Lock) renew(ctx context.Context) error {
	if err := l.stillHeld(ctx); err != nil {
		return err
	}
	body := l.body
	body.Refreshed, body.Count = l.r.Options.Now().UTC(), body.Count+1
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
	if err := l.removeStuck(ctx); err != nil {
		if oldest != nil {
			l.stuck = append(l.stuck, *oldest)
		}
		return fmt.Errorf("refresh the lock: %w", err)
	}
	if oldest == nil {
		return nil
	}
	switch err := l.r.Backend.Delete(ctx, layout.LocksDir+oldest.String()); {
	case errors.Is(err, backend.ErrNotExist):
		l.lost = true // another process has removed the lock
		_ = l.remove(ctx)
		return store.ErrLockLost
	case err != nil:
		l.stuck = append(l.stuck, *oldest)
		return fmt.Errorf("refresh the lock: %w", err)
	}
	return nil
}

// removeStuck removes the files that could not be removed before.
func (l *Lock) removeStuck(ctx context.Context) (err error) {
	l.stuck = slices.DeleteFunc(l.stuck, func(id layout.FileID) bool {
		failed := l.r.Backend.Delete(ctx, layout.LocksDir+id.String())
		if errors.Is(failed, backend.ErrNotExist) {
			failed = nil
		}
		err = errors.Join(err, failed)
		return failed == nil
	})
	return err
}

// noteSeen notes that the process has read prune lists.
func (l *Lock) noteSeen(ctx context.Context, lists []layout.FileID) error {
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

// stillHeld does what held does. The caller holds l.mu.
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
	ctx = context.WithoutCancel(ctx)
	all := l.removeStuck(ctx)
	for _, id := range l.files() {
		err := l.r.Backend.Delete(ctx, layout.LocksDir+id.String())
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
