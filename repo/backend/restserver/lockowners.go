package restserver

import (
	"strings"
	"sync"
	"time"
)

// staleLock is the age from which everybody may remove a lock, as in package lock.
const staleLock = 30 * time.Minute

// lockOwners remember who has put the locks, so that a user who may only append cannot end
// the prune of another by removing its lock. They remember only locks that were put since the
// server began: older ones may be removed, or a restart of the server would end backups.
type lockOwners struct {
	start time.Time
	now   func() time.Time

	mu     sync.Mutex
	owners map[string]lockOwner
}

type lockOwner struct {
	user string
	put  time.Time
}

func isLock(t target) bool { return strings.HasPrefix(t.name, "locks/") }

// put notes that a user has put a file.
func (l *lockOwners) put(t target, user string) {
	if !isLock(t) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for name, o := range l.owners { // locks that others have removed
		if now.Sub(o.put) > staleLock {
			delete(l.owners, name)
		}
	}
	l.owners[t.full(t.name)] = lockOwner{user, now}
}

// gone notes that a file was removed.
func (l *lockOwners) gone(t target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.owners, t.full(t.name))
}

// allow reports whether a user may remove a file that was put at a time by the clock of the
// store.
func (l *lockOwners) allow(t target, user string, modified time.Time) bool {
	if !isLock(t) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if o, known := l.owners[t.full(t.name)]; known {
		return o.user == user || l.now().Sub(o.put) > staleLock
	}
	// Somebody has put it before the server began, or without the server.
	return modified.Before(l.start) || l.now().Sub(modified) > staleLock
}
