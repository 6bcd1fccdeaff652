// Package lock tells the processes that use a repository about each other.
//
// A process that holds a lock keeps others out that would harm it, and learns if
// its lock was removed. The package never waits for another process.
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
	// StaleAfter is the age from which the lock of a process about which nothing
	// is known counts as left behind. If the process wakes up after all, it
	// finds out before its snapshot counts; see Lock.held.
	StaleAfter = 30 * time.Minute
	// releaseTime bounds how long Release tries.
	releaseTime = 30 * time.Second
)

// Kind is what a process does, and so which others may be at work beside
// it.
type Kind string

// The kinds of locks. Reading, writing and one prune go on side by side.
const (
	Read      Kind = "read"
	Write     Kind = "write"
	Prune     Kind = "prune"
	Exclusive Kind = "exclusive"
)

func (k Kind) conflicts(o Kind) bool {
	return k == Exclusive || o == Exclusive || k == Prune && o == Prune
}

// LockedError says who has locked the repository. It is ErrLocked.
type LockedError struct{ Lock Info }

func (e *LockedError) Error() string {
	l := e.Lock
	if l.State == Bad {
		return fmt.Sprintf("the repository has a damaged lock, %s", l.ID.Short())
	}
	state := "that process is running"
	if l.State != Alive {
		state = "it last showed itself at " + l.Refreshed.Local().Format(time.TimeOnly)
	}
	return fmt.Sprintf("the repository is locked by %q, process %d of %s on %s, at work since %s; %s",
		l.What, l.Owner.PID, l.Owner.User, l.Owner.Host, l.Since.Local().Format(time.DateTime), state)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == store.ErrLocked }

// lockBody is a lock as it is stored.
type lockBody struct {
	Version   int              `json:"version"`
	Session   string           `json:"session"` // stays while the lock is refreshed
	Kind      Kind             `json:"kind"`
	What      string           `json:"what"`
	Owner     process.Identity `json:"owner"`
	Since     time.Time        `json:"since"`
	Refreshed time.Time        `json:"refreshed"`
	// Seen are the lists of packs to remove that the process has read: it
	// relies on none of these packs.
	Seen []layout.FileID `json:"seen,omitempty"`
}

// Lock is this process's lock. A nil Lock is none: its methods do nothing.
type Lock struct {
	r    *store.Store
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	body lockBody
	id   layout.FileID
	last *layout.FileID // the file before that, which stays until the next refresh
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
	// Its own comes first: of two that begin at once, each sees the other's.
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
				return nil, fmt.Errorf("remove a lock that was left behind: %w", err)
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

// keep refreshes the lock until it is released. A refresh that fails is tried
// again next time: there are several before the lock counts as stale.
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

// refresh puts a newer lock in the place of the last one.
func (l *Lock) refresh(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renew(ctx)
}

func (l *Lock) renew(ctx context.Context) error {
	if err := l.there(ctx); err != nil {
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
	// The file before the last one goes, not the last one: a listing that this
	// happens during could show neither of them then.
	oldest := l.last
	last := l.id
	l.body, l.id, l.last = body, id, &last
	if oldest == nil {
		return nil
	}
	switch err := l.r.Backend.Delete(ctx, layout.LocksDir+oldest.String()); {
	case errors.Is(err, backend.ErrNotExist):
		l.lost = true // somebody took this process for dead in between
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

// held returns nil if the lock was there all the time.
func (l *Lock) held(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.there(ctx)
}

// there returns nil if nobody has taken the lock away.
func (l *Lock) there(ctx context.Context) error {
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

// files names the files that the lock consists of. Who takes the lock away may
// have seen one of them alone.
func (l *Lock) files() []layout.FileID {
	if l.last == nil {
		return []layout.FileID{l.id}
	}
	return []layout.FileID{*l.last, l.id}
}

// Release removes the lock. It does so even if the context that it was made
// with has ended. An error can be ignored: what is left behind is recognised.
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
