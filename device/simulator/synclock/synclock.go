// Package synclock checks how a host takes the sync lock of a simulated device. The
// lock keeps two programs from syncing or backing up at the same time.
//
// The steps are: syncWillStart, opening the lock file, syncLockRequest, locking the
// file, syncDidStart, the work, unlocking, syncDidFinish. The package reports every
// step that is out of order.
package synclock

import (
	"context"
	"sync"
	"time"
)

// Names of the notifications with which a host takes the lock.
const (
	WillStart   = "com.apple.itunes-mobdev.syncWillStart"
	LockRequest = "com.apple.itunes-mobdev.syncLockRequest"
	DidStart    = "com.apple.itunes-mobdev.syncDidStart"
	DidFinish   = "com.apple.itunes-mobdev.syncDidFinish"
)

// File is the file that hosts lock, as AFC shows it.
const File = "/com.apple.itunes.lock_sync"

// phase says which notifications a host has posted.
type phase int

const (
	idle phase = iota
	announced
	requested
	started
)

// Lock follows the steps of a host. New makes one.
type Lock struct {
	violate func(format string, args ...any)

	mu     sync.Mutex
	phase  phase
	opened int // number of open handles of the lock file
	locked bool
	busy   int           // how many of the next attempts to lock fail
	change chan struct{} // closed at the next change
}

// grace is how long a step waits for the notification that must come before it. If the
// notification still is missing then, the step is a violation. A notification can be
// late, since it is not confirmed and arrives on another connection.
const grace = 2 * time.Second

// New returns a lock that no host holds. The lock calls violate for each mistake of a
// host.
func New(violate func(format string, args ...any)) *Lock { return &Lock{violate: violate} }

// set changes the state. s.mu must be held.
func (s *Lock) set(change func()) {
	change()
	if s.change != nil {
		close(s.change)
		s.change = nil
	}
}

// await waits until reached returns true, but no longer than grace. It calls reached
// with s.mu held.
func (s *Lock) await(ctx context.Context, reached func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for {
		s.mu.Lock()
		if reached() {
			s.mu.Unlock()
			return true
		}
		if s.change == nil {
			s.change = make(chan struct{})
		}
		change := s.change
		s.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}

// SetBusy makes the next n attempts to take the lock fail, as if another program held
// the lock.
func (s *Lock) SetBusy(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = n
}

// Syncing reports whether a host holds the lock and has announced that its sync
// started. A backup should run only then. Syncing waits briefly, as the notification
// may be under way.
func (s *Lock) Syncing(ctx context.Context) bool {
	return s.await(ctx, func() bool { return s.phase == started && s.locked })
}

// AwaitRequest waits briefly for the notification LockRequest.
func (s *Lock) AwaitRequest(ctx context.Context) {
	s.await(ctx, func() bool { return s.locked || s.phase == requested })
}

// Post tells the lock that a host has posted a notification.
func (s *Lock) Post(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case WillStart:
		if s.locked {
			return // it is from another program, which will find the lock taken
		}
		s.set(func() { s.phase = announced })
	case LockRequest:
		if s.locked {
			return
		}
		if s.phase != announced {
			s.violate("syncLockRequest without syncWillStart before it")
		}
		if s.opened == 0 {
			s.violate("syncLockRequest before the lock file is open")
		}
		s.set(func() { s.phase = requested })
	case DidStart:
		if s.phase != requested || !s.locked {
			s.violate("syncDidStart without the sync lock")
		}
		s.set(func() { s.phase = started })
	case DidFinish:
		if s.phase == idle {
			s.violate("syncDidFinish without syncWillStart before it")
		}
		if s.locked {
			s.violate("syncDidFinish before the sync lock is released")
		}
		s.set(func() { s.phase = idle })
	}
}

// TryLock reports whether a host may lock the lock file.
func (s *Lock) TryLock() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return false
	}
	if s.phase != requested {
		s.violate("the sync lock is requested without syncLockRequest before it")
	}
	if s.busy > 0 {
		s.busy--
		return false
	}
	return true
}

// Opened adds n to the number of open handles of the lock file.
func (s *Lock) Opened(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened += n
}

// SetLocked tells the lock that the lock file was locked or unlocked.
func (s *Lock) SetLocked(locked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(func() { s.locked = locked })
}

// Lost tells the lock that the connection that held it has ended, and whether
// the host ended it.
func (s *Lock) Lost(byHost bool) {
	if byHost {
		s.violate("the connection was closed with the sync lock held")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(func() { s.locked, s.phase = false, idle })
}
