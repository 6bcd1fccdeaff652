package repo

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
)

const (
	lockMagic   = "snaplk01"
	lockVersion = 1
	maxLockSize = 1 << 20
	// lockStale is the age from which the lock of a process about which nothing
	// is known counts as left behind. If the process wakes up after all, it
	// finds out before its snapshot counts; see Lock.held.
	lockStale = 30 * time.Minute
	// releaseTime bounds how long Release tries.
	releaseTime = 30 * time.Second
)

// LockKind is what a process does, and so which others may be at work beside
// it.
type LockKind string

// The kinds of locks. Reading, writing and one prune go on side by side.
const (
	LockRead      LockKind = "read"
	LockWrite     LockKind = "write"
	LockPrune     LockKind = "prune"
	LockExclusive LockKind = "exclusive"
)

func (k LockKind) conflicts(o LockKind) bool {
	return k == LockExclusive || o == LockExclusive || k == LockPrune && o == LockPrune
}

// LockState is what is known of a lock's owner.
type LockState string

// The states of a lock.
const (
	LockAlive LockState = "alive"   // its process runs on this machine
	LockDead  LockState = "dead"    // its process has ended
	LockStale LockState = "stale"   // it was not refreshed in time
	LockFresh LockState = "fresh"   // its process is elsewhere and shows itself
	LockBad   LockState = "damaged" // nobody can say whose it is
)

// gone reports whether the lock's process does not count any more.
func (s LockState) gone() bool { return s == LockDead || s == LockStale }

// LockInfo describes a lock in the repository.
type LockInfo struct {
	ID        FileID           `json:"id"`
	Kind      LockKind         `json:"kind"`
	What      string           `json:"what"` // the command
	Owner     process.Identity `json:"owner"`
	Since     time.Time        `json:"since"`
	Refreshed time.Time        `json:"refreshed"`
	State     LockState        `json:"state"`

	session string
	seen    []FileID
	others  []FileID // older files of the same lock
}

// LockedError says who has locked the repository. It is ErrLocked.
type LockedError struct{ Lock LockInfo }

func (e *LockedError) Error() string {
	l := e.Lock
	if l.State == LockBad {
		return fmt.Sprintf("the repository has a damaged lock, %s", l.ID.Short())
	}
	state := "that process is running"
	if l.State != LockAlive {
		state = "it last showed itself at " + l.Refreshed.Local().Format(time.TimeOnly)
	}
	return fmt.Sprintf("the repository is locked by %q, process %d of %s on %s, at work since %s; %s",
		l.What, l.Owner.PID, l.Owner.User, l.Owner.Host, l.Since.Local().Format(time.DateTime), state)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// lockBody is a lock as it is stored.
type lockBody struct {
	Version   int              `json:"version"`
	Session   string           `json:"session"` // stays while the lock is refreshed
	Kind      LockKind         `json:"kind"`
	What      string           `json:"what"`
	Owner     process.Identity `json:"owner"`
	Since     time.Time        `json:"since"`
	Refreshed time.Time        `json:"refreshed"`
	// Seen are the lists of packs to remove that the process has read: it
	// relies on none of these packs.
	Seen []FileID `json:"seen,omitempty"`
}

// Lock is this process's lock. A nil Lock is none: its methods do nothing.
type Lock struct {
	r    *Repo
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	body lockBody
	id   FileID
	last *FileID // the file before that, which stays until the next refresh
	lost bool
}

// Lock tells others that this process is at work, until Release. what names the
// command for people. It fails with a *LockedError if one is at work that does
// not suffer this one beside it. Locks that were left behind are removed.
//
// Call it before LoadIndex. One lock at a time can be held through a Repo.
func (r *Repo) Lock(ctx context.Context, kind LockKind, what string) (*Lock, error) {
	if r.guard != nil {
		return nil, errors.New("lock: this process holds one already")
	}
	var session [16]byte
	if _, err := io.ReadFull(r.opts.Rand, session[:]); err != nil {
		return nil, err
	}
	now := r.opts.Now().UTC()
	l := &Lock{r: r, done: make(chan struct{}), body: lockBody{
		Version: lockVersion, Session: hex.EncodeToString(session[:]), Kind: kind, What: what,
		Owner: *r.opts.Owner, Since: now, Refreshed: now,
	}}
	var err error
	if l.id, err = r.putLock(ctx, l.body); err != nil {
		return nil, fmt.Errorf("lock the repository: %w", err)
	}
	// Its own comes first: of two that begin at once, each sees the other's.
	locks, err := r.Locks(ctx)
	if err != nil {
		_ = l.remove(ctx)
		return nil, err
	}
	for _, o := range locks {
		switch {
		case o.session == l.body.Session:
		case o.State.gone():
			if err := r.deleteLock(ctx, o); err != nil {
				_ = l.remove(ctx)
				return nil, fmt.Errorf("remove a lock that was left behind: %w", err)
			}
		case o.State == LockBad && (kind == LockPrune || kind == LockExclusive), o.State != LockBad && kind.conflicts(o.Kind):
			_ = l.remove(ctx)
			return nil, &LockedError{o}
		}
	}
	r.guard = &guard{kind: string(kind), session: l.body.Session, held: l.held, see: l.see}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.keep(inner)
	return l, nil
}

// keep refreshes the lock until it is released. A refresh that fails is tried
// again next time: there are several before the lock counts as stale.
func (l *Lock) keep(ctx context.Context) {
	defer close(l.done)
	if l.r.opts.Refresh < 0 {
		return
	}
	tick := time.NewTicker(l.r.opts.Refresh)
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
	body.Refreshed = l.r.opts.Now().UTC()
	id, err := l.r.putLock(ctx, body)
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
	switch err := l.r.be.Delete(ctx, locksDir+oldest.String()); {
	case errors.Is(err, backend.ErrNotExist):
		l.lost = true // somebody took this process for dead in between
		_ = l.remove(ctx)
		return ErrLockLost
	case err != nil:
		return fmt.Errorf("refresh the lock: %w", err)
	}
	return nil
}

// see notes that the process has read prune lists.
func (l *Lock) see(ctx context.Context, lists []FileID) error {
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
		return ErrLockLost
	}
	for _, id := range l.files() {
		_, err := l.r.be.Stat(ctx, locksDir+id.String())
		if errors.Is(err, backend.ErrNotExist) {
			l.lost = true
			_ = l.remove(ctx)
			return ErrLockLost
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// files names the files that the lock consists of. Who takes the lock away may
// have seen one of them alone.
func (l *Lock) files() []FileID {
	if l.last == nil {
		return []FileID{l.id}
	}
	return []FileID{*l.last, l.id}
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
	l.r.guard = nil
	return l.remove(ctx)
}

// remove deletes the lock's files.
func (l *Lock) remove(ctx context.Context) error {
	var all error
	for _, id := range l.files() {
		err := l.r.be.Delete(context.WithoutCancel(ctx), locksDir+id.String())
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

func (r *Repo) putLock(ctx context.Context, body lockBody) (FileID, error) {
	plain, err := json.Marshal(body)
	if err != nil {
		return FileID{}, err
	}
	b, err := r.locks.Seal([]byte(lockMagic), plain, nil)
	if err != nil {
		return FileID{}, err
	}
	return r.putNamed(ctx, locksDir, b)
}

// Locks lists the locks in the repository, the oldest first.
func (r *Repo) Locks(ctx context.Context) ([]LockInfo, error) {
	self := process.Current()
	var out []LockInfo
	err := r.be.List(ctx, locksDir, func(f backend.Info) error {
		id, err := fileID(f.Name)
		if err != nil {
			return nil // not one of ours
		}
		info, err := r.readLock(ctx, f.Name)
		switch {
		case errors.Is(err, backend.ErrNotExist):
			return nil // released or refreshed since it was listed
		case errors.Is(err, ErrDamaged):
			info.State = LockBad
		case err != nil:
			return err
		default:
			info.State = r.judge(info, self)
		}
		info.ID = id
		out = append(out, info)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read locks: %w", err)
	}
	out = newestFiles(out)
	slices.SortFunc(out, func(a, b LockInfo) int { return a.Since.Compare(b.Since) })
	return out, nil
}

// newestFiles makes one of the files of each lock, of which the newest counts.
func newestFiles(all []LockInfo) []LockInfo {
	var out []LockInfo
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

func (r *Repo) judge(l LockInfo, self process.Identity) LockState {
	if r.guard != nil && l.session == r.guard.session {
		return LockAlive
	}
	switch l.Owner.State(self) {
	case process.Alive:
		return LockAlive
	case process.Dead:
		return LockDead
	}
	if r.opts.Now().Sub(l.Refreshed) > lockStale {
		return LockStale
	}
	return LockFresh
}

// lockedFor reports whether this process holds a lock of a kind.
func (r *Repo) lockedFor(kind LockKind) bool { return r.guard != nil && r.guard.kind == string(kind) }

// notRead returns the locks whose processes may rely on the packs of a prune
// list, since they have not read it.
func (r *Repo) notRead(locks []LockInfo, list FileID) (out []LockInfo) {
	for _, l := range locks {
		if l.session != r.guard.session && l.Kind != LockPrune && !slices.Contains(l.seen, list) {
			out = append(out, l)
		}
	}
	return out
}

// LeftBehind reports whether a lock's process is gone, as far as can be known.
func LeftBehind(l LockInfo) bool { return l.State.gone() }

// RemoveLocks removes some locks and returns them. A process whose lock goes
// while it runs notices before its snapshot counts, and fails.
func (r *Repo) RemoveLocks(ctx context.Context, which func(LockInfo) bool) ([]LockInfo, error) {
	locks, err := r.Locks(ctx)
	if err != nil {
		return nil, err
	}
	var removed []LockInfo
	for _, l := range locks {
		if !which(l) {
			continue
		}
		if err := r.deleteLock(ctx, l); err != nil {
			return removed, fmt.Errorf("remove lock %s: %w", l.ID.Short(), err)
		}
		removed = append(removed, l)
	}
	return removed, nil
}

// deleteLock removes all files of somebody's lock.
func (r *Repo) deleteLock(ctx context.Context, l LockInfo) error {
	for _, id := range append(l.others, l.ID) {
		if err := r.be.Delete(ctx, locksDir+id.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (r *Repo) readLock(ctx context.Context, name string) (LockInfo, error) {
	b, err := r.readNamed(ctx, name, maxLockSize)
	if err != nil {
		return LockInfo{}, err
	}
	body, err := openLock(b, r.locks)
	if err != nil {
		return LockInfo{}, &DamageError{name, err}
	}
	return LockInfo{
		Kind: body.Kind, What: body.What, Owner: body.Owner, Since: body.Since, Refreshed: body.Refreshed,
		session: body.Session, seen: body.Seen,
	}, nil
}

func openLock(b []byte, sealer *crypto.Sealer) (lockBody, error) {
	var body lockBody
	sealed, ok := hasMagic(b, lockMagic)
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
		return body, fmt.Errorf("lock version %d: %w", body.Version, ErrUnsupported)
	}
	return body, nil
}
