package simulator

import (
	"context"
	"net"
	"sync"
	"time"
)

// Names of the notifications by which a host takes its turn at syncing.
const (
	SyncWillStart   = "com.apple.itunes-mobdev.syncWillStart"
	SyncLockRequest = "com.apple.itunes-mobdev.syncLockRequest"
	SyncDidStart    = "com.apple.itunes-mobdev.syncDidStart"
	SyncDidFinish   = "com.apple.itunes-mobdev.syncDidFinish"
	// SyncCancelRequest tells the host that somebody tapped "Cancel", see Notify.
	SyncCancelRequest = "com.apple.itunes-client.syncCancelRequest"
)

// SyncLockFile is the file whose lock keeps several syncing programs apart.
const SyncLockFile = "/com.apple.itunes.lock_sync"

// syncPhase is how far a host has come.
type syncPhase int

const (
	syncIdle syncPhase = iota
	syncAnnounced
	syncRequested
	syncStarted
)

// syncState follows the order of a host's steps: syncWillStart, opening the lock
// file, syncLockRequest, the lock, syncDidStart, the work itself, giving the
// lock back, syncDidFinish.
type syncState struct {
	mu     sync.Mutex
	phase  syncPhase
	opened int // times that the lock file is open
	locked bool
	busy   int           // attempts to lock that will fail
	change chan struct{} // closed with the next change, for those that wait
}

// syncGrace is how long a device waits for a notification before it finds fault
// with what comes before it: nobody confirms notifications, and they come on
// another connection than what they announce.
const syncGrace = 2 * time.Second

// set changes the state, under s.mu.
func (s *syncState) set(change func()) {
	change()
	if s.change != nil {
		close(s.change)
		s.change = nil
	}
}

// await waits until reached, called under s.mu, reports true, for at most
// syncGrace.
func (s *syncState) await(ctx context.Context, reached func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, syncGrace)
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

// SetLockBusy makes the next attempts to take the sync lock fail with "would
// block", as while another program has it.
func (d *Device) SetLockBusy(attempts int) {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	d.sync.busy = attempts
}

// Syncing reports whether a host holds the sync lock and has said that it
// started; a backup should run only then. It waits a moment for a notification
// that may be on its way.
func (d *Device) Syncing(ctx context.Context) bool {
	return d.sync.await(ctx, func() bool { return d.sync.phase == syncStarted && d.sync.locked })
}

// syncRequested waits a moment for syncLockRequest.
func (d *Device) syncRequested(ctx context.Context) {
	d.sync.await(ctx, func() bool { return d.sync.locked || d.sync.phase == syncRequested })
}

// syncPost follows a notification that a host posts.
func (d *Device) syncPost(name string) {
	s := &d.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case SyncWillStart:
		if s.locked {
			return // another program, which will find the lock taken
		}
		s.set(func() { s.phase = syncAnnounced })
	case SyncLockRequest:
		if s.locked {
			return
		}
		if s.phase != syncAnnounced {
			d.Violate("syncLockRequest without syncWillStart before it")
		}
		if s.opened == 0 {
			d.Violate("syncLockRequest before the lock file is open")
		}
		s.set(func() { s.phase = syncRequested })
	case SyncDidStart:
		if s.phase != syncRequested || !s.locked {
			d.Violate("syncDidStart without the sync lock")
		}
		s.set(func() { s.phase = syncStarted })
	case SyncDidFinish:
		if s.phase == syncIdle {
			d.Violate("syncDidFinish without syncWillStart before it")
		}
		if s.locked {
			d.Violate("syncDidFinish before the sync lock is released")
		}
		s.set(func() { s.phase = syncIdle })
	}
}

// syncTryLock decides over an attempt to lock the sync lock file.
func (d *Device) syncTryLock() bool {
	s := &d.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return false
	}
	if s.phase != syncRequested {
		d.Violate("the sync lock is asked for without syncLockRequest before it")
	}
	if s.busy > 0 {
		s.busy--
		return false
	}
	return true
}

// syncOpen counts handles of the lock file.
func (d *Device) syncOpen(by int) {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	d.sync.opened += by
}

func (d *Device) syncLocked(locked bool) {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	d.sync.set(func() { d.sync.locked = locked })
}

// syncLost is called when a connection ends that held the lock.
func (d *Device) syncLost(byHost bool) {
	if byHost {
		d.Violate("the connection was closed with the sync lock held")
	}
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	d.sync.set(func() { d.sync.locked, d.sync.phase = false, syncIdle })
}

// endedByHost tells connections that the host closed from those that were cut.
func endedByHost(ctx context.Context, c net.Conn) bool {
	if ctx.Err() != nil {
		return false
	}
	if c, ok := c.(*conn); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.cut && !c.silent
	}
	return true
}
