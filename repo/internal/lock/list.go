package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// State is what is known about the process that holds a lock.
type State string

// The states of a lock.
const (
	Alive   State = "alive"   // its process runs on this machine
	Dead    State = "dead"    // its process has ended
	Stale   State = "stale"   // it was not refreshed in time
	Fresh   State = "fresh"   // its process is elsewhere and refreshes it
	Unknown State = "unknown" // its process is elsewhere, and no clock tells whether it refreshes it
	Bad     State = "damaged" // it cannot be read
)

// gone reports whether the lock's process is known or assumed to have ended.
func (s State) gone() bool { return s == Dead || s == Stale }

// Info describes a lock in the repository.
type Info struct {
	ID   layout.FileID `json:"id"`
	Kind Kind          `json:"kind"`
	What string        `json:"what"` // the command
	// Owner, Since and Refreshed are what the process says of itself. Its clock may be
	// wrong, so these times are only for people.
	Owner     process.Identity `json:"owner"`
	Since     time.Time        `json:"since"`
	Refreshed time.Time        `json:"refreshed"`
	State     State            `json:"state"`

	session  string
	count    int // of refreshes
	seen     []layout.FileID
	others   []layout.FileID // older files of the same lock
	modified time.Time       // when its newest file was put, by the store's clock
}

// List lists the locks in the repository, the oldest first.
func List(ctx context.Context, r *store.Store) ([]Info, error) {
	if r.Guard != nil {
		return list(ctx, r, r.Guard.Session)
	}
	locks, err := list(ctx, r, "")
	if err != nil || !slices.ContainsFunc(locks, func(l Info) bool { return l.State == Unknown || l.State == Bad }) {
		return locks, err
	}
	// Only a file that is put now tells what time it is by the store's clock. If none can
	// be put, the locks stay unknown.
	probe, err := newBody(r, Read, "snap unlock")
	if err != nil {
		return nil, err
	}
	id, err := putLock(ctx, r, probe)
	if err != nil {
		return locks, ctx.Err()
	}
	locks, err = list(ctx, r, probe.Session)
	if errDelete := r.Backend.Delete(context.WithoutCancel(ctx), layout.LocksDir+id.String()); !errors.Is(errDelete, backend.ErrNotExist) {
		err = errors.Join(err, errDelete)
	}
	return slices.DeleteFunc(locks, func(l Info) bool { return l.session == probe.Session }), err
}

// list lists the locks. own is the session of this process, whose files tell the time by
// the store's clock; "" if it has none.
func list(ctx context.Context, r *store.Store, own string) ([]Info, error) {
	var out []Info
	err := r.Backend.List(ctx, layout.LocksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil // not a lock
		}
		info, err := readLock(ctx, r, f.Name)
		switch {
		case errors.Is(err, backend.ErrNotExist):
			return nil // released or refreshed since it was listed
		case errors.Is(err, store.ErrDamaged):
			info.State = Bad
		case err != nil:
			return err
		}
		info.ID, info.modified = id, f.Modified
		out = append(out, info)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read locks: %w", err)
	}
	out = newestFiles(out)
	judge(r, out, own)
	slices.SortFunc(out, func(a, b Info) int { return a.Since.Compare(b.Since) })
	return out, nil
}

// newestFiles returns the newest file of each lock, with its older files in others.
func newestFiles(all []Info) []Info {
	var out []Info
	at := map[string]int{}
	for _, l := range all {
		i, found := at[l.session]
		if l.session == "" || !found {
			at[l.session] = len(out)
			out = append(out, l)
			continue
		}
		older, newer := l, out[i]
		if l.newerThan(newer) {
			older, newer = newer, l
		}
		newer.others = append(slices.Clone(out[i].others), older.ID)
		if newer.modified.Before(older.modified) {
			newer.modified = older.modified
		}
		out[i] = newer
	}
	return out
}

// newerThan reports which of two files of a lock was written later. Programs that did
// not count the refreshes are judged by their own clocks.
func (i Info) newerThan(o Info) bool {
	switch {
	case i.count != o.count:
		return i.count > o.count
	case !i.Refreshed.Equal(o.Refreshed):
		return i.Refreshed.After(o.Refreshed)
	}
	return len(i.seen) >= len(o.seen)
}

// Holds reports whether this process holds a lock of a kind.
func Holds(r *store.Store, kind Kind) bool { return r.Guard != nil && r.Guard.Kind == string(kind) }

// NotRead returns the locks of processes that have not read a prune list, and so
// may rely on its packs.
func NotRead(r *store.Store, locks []Info, list layout.FileID) (out []Info) {
	for _, l := range locks {
		if l.session != r.Guard.Session && l.Kind != Prune && !slices.Contains(l.seen, list) {
			out = append(out, l)
		}
	}
	return out
}

// Files returns the names of all files of a lock.
func (i *Info) Files() []string {
	var names []string
	for _, id := range append(slices.Clone(i.others), i.ID) {
		names = append(names, layout.LocksDir+id.String())
	}
	return names
}

// LeftBehind reports whether a lock is stale: its process is known or assumed to
// have ended.
func LeftBehind(l Info) bool { return l.State.gone() }

// Remove removes the locks for which match returns true, and returns them. A process
// that still runs without its lock fails, and removes a snapshot that it has just
// stored.
func Remove(ctx context.Context, r *store.Store, match func(Info) bool) ([]Info, error) {
	locks, err := List(ctx, r)
	if err != nil {
		return nil, err
	}
	var removed []Info
	for _, l := range locks {
		if !match(l) {
			continue
		}
		if err := deleteLock(ctx, r, l); err != nil {
			return removed, fmt.Errorf("remove lock %s: %w", l.ID.Short(), err)
		}
		removed = append(removed, l)
	}
	return removed, nil
}

// deleteLock removes all files of a lock. What is no file, it moves aside.
func deleteLock(ctx context.Context, r *store.Store, l Info) error {
	for _, name := range l.Files() {
		aside, err := replace.MoveAside(ctx, r.Backend, name)
		if err == nil && aside == "" {
			err = r.Backend.Delete(ctx, name)
		}
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
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
		session: body.Session, count: body.Count, seen: body.Seen,
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
