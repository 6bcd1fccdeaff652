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
)

// State is what is known about the process that holds a lock.
type State string

// The states of a lock.
const (
	Alive State = "alive"   // its process runs on this machine
	Dead  State = "dead"    // its process has ended
	Stale State = "stale"   // it was not refreshed in time
	Fresh State = "fresh"   // its process is elsewhere and refreshes it
	Bad   State = "damaged" // it cannot be read
)

// gone reports whether the lock's process is known or assumed to have ended.
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

// List lists the locks in the repository, the oldest first.
func List(ctx context.Context, r *store.Store) ([]Info, error) {
	self := process.Current()
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
		default:
			info.State = stateOf(r, info, self)
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

// newestFiles returns the newest file of each lock, with its older files in others.
func newestFiles(all []Info) []Info {
	var out []Info
	at := map[string]int{}
	for _, l := range all {
		i, found := at[l.session]
		switch {
		case l.session == "" || !found:
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

// stateOf returns the state of a lock.
func stateOf(r *store.Store, l Info, self process.Identity) State {
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

// LeftBehind reports whether a lock is stale: its process is known or assumed to
// have ended.
func LeftBehind(l Info) bool { return l.State.gone() }

// Remove removes the locks that the function which selects, and returns them. A
// process that still runs without its lock fails, and removes a snapshot that it
// has just stored.
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

// deleteLock removes all files of a lock.
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
