package lock

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/internal/store"
)

// resolution is the coarsest resolution of a store's clock.
const resolution = 2 * time.Second

// judge sets the states of locks, and notes in r.Watch what it has seen. own is the
// session of this process, "" if it has none.
//
// The clocks of two hosts are never compared. A lock of another host is stale if its
// newest file is much older than one that this process has just put, both by the
// store's clock, or if this process has watched it for a long time without a change.
func judge(r *store.Store, locks []Info, own string) {
	w := &r.Watch
	w.Mutex.Lock()
	defer w.Mutex.Unlock()
	now := r.Options.Elapsed()
	storeNow := storeTime(w, locks, own)
	seen := map[string]store.Sighting{}
	for i := range locks {
		l := &locks[i]
		if own != "" && l.session == own {
			l.State = Alive
			continue
		}
		s := store.Sighting{Files: l.fileNames(), Since: now}
		if before, known := w.Seen[l.key()]; known && before.Files == s.Files {
			s = before
		}
		seen[l.key()] = s
		l.State = l.state(*r.Options.Owner, storeNow, now-s.Since)
	}
	w.Seen = seen
}

// storeTime returns when the newest lock file of this process was put, by the store's
// clock, as a time that is not later than now by that clock. It returns zero if that
// is not known.
func storeTime(w *store.Watch, locks []Info, own string) time.Time {
	at := slices.IndexFunc(locks, func(l Info) bool { return own != "" && l.session == own })
	if at < 0 || locks[at].modified.IsZero() {
		return time.Time{}
	}
	now := locks[at].modified
	if now.Before(w.Own.Add(-resolution)) {
		w.Unreliable = true
	}
	w.Own = now
	if w.Unreliable {
		return time.Time{}
	}
	return now
}

// state returns the state of a lock, given the time by the store's clock and how long
// this process has watched the lock without a change.
func (i *Info) state(self process.Identity, storeNow time.Time, watched time.Duration) State {
	if i.State != Bad {
		switch i.Owner.State(self) {
		case process.Alive:
			return Alive
		case process.Dead:
			return Dead
		}
	}
	timed := !storeNow.IsZero() && !i.modified.IsZero()
	age := storeNow.Sub(i.modified)
	switch {
	case watched > StaleAfter, timed && age > StaleAfter:
		return Stale
	case i.State == Bad:
		return Bad
	case !timed, age < -StaleAfter, i.Refreshed.Sub(i.modified) > StaleAfter:
		return Unknown // a date far ahead, by whatever clock, does not make it fresh
	}
	return Fresh
}

// key names a lock through all its refreshes.
func (i *Info) key() string {
	if i.session == "" {
		return i.ID.String()
	}
	return i.session
}

// fileNames returns the names of a lock's files. They change with every refresh.
func (i *Info) fileNames() string {
	names := []string{i.ID.String()}
	for _, id := range i.others {
		names = append(names, id.String())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Gone reports whether all of these locks have been released or are stale.
func Gone(ctx context.Context, r *store.Store, locks []Info) (bool, error) {
	now, err := List(ctx, r)
	return err == nil && !slices.ContainsFunc(now, func(n Info) bool {
		return !n.State.gone() && slices.ContainsFunc(locks, func(l Info) bool { return l.key() == n.key() })
	}), err
}

// Age returns for how long a file has existed, by the store's clock, given when it was
// put. It returns 0 if that is not known.
func Age(r *store.Store, put time.Time) time.Duration {
	r.Watch.Mutex.Lock()
	defer r.Watch.Mutex.Unlock()
	if r.Watch.Own.IsZero() || r.Watch.Unreliable || put.IsZero() {
		return 0
	}
	return r.Watch.Own.Sub(put)
}

// skew returns how much the clock of this host is ahead of the store's, given the time
// by this host before and after a file was put, and the file's time.
func skew(before, after, modified time.Time) time.Duration {
	switch {
	case modified.IsZero():
		return 0
	case modified.Before(before.Add(-resolution)):
		return before.Sub(modified)
	case modified.After(after.Add(resolution)):
		return after.Sub(modified)
	}
	return 0
}
