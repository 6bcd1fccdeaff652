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

	"github.com/snap-backup/snap/crypto"
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

// State is what is known of a lock's owner.
type State string

// The states of a lock.
const (
	Alive State = "alive"   // its process runs on this machine
	Dead  State = "dead"    // its process has ended
	Stale State = "stale"   // it was not refreshed in time
	Fresh State = "fresh"   // its process is elsewhere and shows itself
	Bad   State = "damaged" // nobody can say whose it is
)

// gone reports whether the lock's process does not count any more.
func (s State) gone() bool { return s == Dead || s == Stale }

// Info describes a lock in the repository.
type Info struct {
	ID        layout.FileID    `json:"id"`
	Kind      Kind             `json:"kind"`
	What      string           `json:"what"` // the command
	Owner     process.Identity `json:"owner"`
	Since     time.Time        `json:"since"`
	Refreshed time.Time        `json:"refreshed"`
	State     State            `json:"state"`

	session string
	seen    []layout.FileID
	others  []layout.FileID // older files of the same lock
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

// List lists the locks in the repository, the oldest first.
func List(ctx context.Context, r *store.Store) ([]Info, error) {
	self := process.Current()
	var out []Info
	err := r.Backend.List(ctx, layout.LocksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil // not one of ours
		}
		info, err := readLock(ctx, r, f.Name)
		switch {
		case errors.Is(err, backend.ErrNotExist):
			return nil // released or refreshed since it was listed
		case errors.Is(err, store.ErrDamaged):
			info.State = Bad
		case err != nil:
			return err
		default:
			info.State = judge(r, info, self)
		}
		info.ID = id
		out = append(out, info)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read locks: %w", err)
	}
	out = newestFiles(out)
	slices.SortFunc(out, func(a, b Info) int { return a.Since.Compare(b.Since) })
	return out, nil
}

// newestFiles makes one of the files of each lock, of which the newest counts.
func newestFiles(all []Info) []Info {
	var out []Info
	at := map[string]int{}
	for _, l := range all {
		i, again := at[l.session]
		switch {
		case l.session == "" || !again:
			at[l.session] = len(out)
			out = append(out, l)
		case l.Refreshed.After(out[i].Refreshed) || l.Refreshed.Equal(out[i].Refreshed) && len(l.seen) >= len(out[i].seen):
			l.others = append(out[i].others, out[i].ID)
			out[i] = l
		default:
			out[i].others = append(out[i].others, l.ID)
		}
	}
	return out
}

func judge(r *store.Store, l Info, self process.Identity) State {
	if r.Guard != nil && l.session == r.Guard.Session {
		return Alive
	}
	switch l.Owner.State(self) {
	case process.Alive:
		return Alive
	case process.Dead:
		return Dead
	}
	if r.Options.Now().Sub(l.Refreshed) > StaleAfter {
		return Stale
	}
	return Fresh
}

// Holds reports whether this process holds a lock of a kind.
func Holds(r *store.Store, kind Kind) bool { return r.Guard != nil && r.Guard.Kind == string(kind) }

// NotRead returns the locks whose processes may rely on the packs of a prune
// list, since they have not read it.
func NotRead(r *store.Store, locks []Info, list layout.FileID) (out []Info) {
	for _, l := range locks {
		if l.session != r.Guard.Session && l.Kind != Prune && !slices.Contains(l.seen, list) {
			out = append(out, l)
		}
	}
	return out
}

// LeftBehind reports whether a lock's process is gone, as far as can be known.
func LeftBehind(l Info) bool { return l.State.gone() }

// Remove removes some locks and returns them. A process whose lock goes
// while it runs notices before its snapshot counts, and fails.
func Remove(ctx context.Context, r *store.Store, which func(Info) bool) ([]Info, error) {
	locks, err := List(ctx, r)
	if err != nil {
		return nil, err
	}
	var removed []Info
	for _, l := range locks {
		if !which(l) {
			continue
		}
		if err := deleteLock(ctx, r, l); err != nil {
			return removed, fmt.Errorf("remove lock %s: %w", l.ID.Short(), err)
		}
		removed = append(removed, l)
	}
	return removed, nil
}

// deleteLock removes all files of somebody's lock.
func deleteLock(ctx context.Context, r *store.Store, l Info) error {
	for _, id := range append(l.others, l.ID) {
		if err := r.Backend.Delete(ctx, layout.LocksDir+id.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	return nil
}

func readLock(ctx context.Context, r *store.Store, name string) (Info, error) {
	b, err := r.ReadNamed(ctx, name, maxLockSize)
	if err != nil {
		return Info{}, err
	}
	body, err := openLock(b, r.LockSealer)
	if err != nil {
		return Info{}, &store.DamageError{File: name, Err: err}
	}
	return Info{
		Kind: body.Kind, What: body.What, Owner: body.Owner, Since: body.Since, Refreshed: body.Refreshed,
		session: body.Session, seen: body.Seen,
	}, nil
}

func openLock(b []byte, sealer *crypto.Sealer) (lockBody, error) {
	var body lockBody
	sealed, ok := store.CutMagic(b, lockMagic)
	if !ok {
		return body, errors.New("bad magic")
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return body, err
	}
	return parseLock(plain)
}

func parseLock(plain []byte) (lockBody, error) {
	var body lockBody
	if err := json.Unmarshal(plain, &body); err != nil {
		return body, err
	}
	if body.Version != lockVersion {
		return body, fmt.Errorf("lock version %d: %w", body.Version, store.ErrUnsupported)
	}
	return body, nil
}
