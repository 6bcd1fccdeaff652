package device

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/protocol/afc"
	"github.com/snap-backup/snap/device/protocol/service"
)

// ErrSyncBusy says that another program has the device's sync lock.
var ErrSyncBusy = errors.New("another program on a computer is synchronising or backing up the device")

const (
	syncLockFile = "/com.apple.itunes.lock_sync"
	lockTries    = 50
	lockInterval = 200 * time.Millisecond
	// releaseTimeout limits Release, which also runs after the context ended.
	releaseTimeout = 15 * time.Second
)

// Sync holds a device's sync lock during a backup or restore, so that other
// programs do not interfere. It also receives the device's notifications about
// actions of its user. First call OpenSync, then start the backup service, call
// Lock, back up, and call Release.
type Sync struct {
	mux    *Mux
	entry  Entry
	notify *service.Notify
	files  *afc.Client
	lock   *afc.File // nil if not held
	posted bool      // syncWillStart was posted

	tries    int // number of tries to take the lock
	interval time.Duration

	canceled chan struct{}
	stop     context.CancelFunc
	listener sync.WaitGroup
}

// OpenSync opens the connections. A goroutine of Sync calls fn, if fn is not nil,
// with the name of each notification of the device (see package service). The
// caller must call Release.
func (m *Mux) OpenSync(ctx context.Context, e Entry, fn func(notification string)) (*Sync, error) {
	s, err := m.Session(ctx, e)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	c, err := s.StartService(ctx, service.NotificationProxy, false)
	if err != nil {
		return nil, err
	}
	notify := service.NewNotify(c)
	err = notify.Observe(ctx, service.SyncCancelRequest, service.SyncSuspendRequest, service.SyncResumeRequest,
		service.BackupDomainChanged, service.PromptPresented, service.PromptDismissed)
	if err != nil {
		notify.Close()
		return nil, err
	}
	if c, err = s.StartService(ctx, afc.Service, false); err != nil {
		notify.Close()
		return nil, err
	}
	y := &Sync{mux: m, entry: e, notify: notify, files: afc.New(c), canceled: make(chan struct{}), tries: lockTries, interval: lockInterval}
	// The goroutine listens until Release, even after ctx ended.
	listen, stop := context.WithCancel(context.WithoutCancel(ctx))
	y.stop = stop
	y.listener.Go(func() { y.listen(listen, fn) })
	return y, nil
}

func (y *Sync) listen(ctx context.Context, fn func(string)) {
	canceled := false
	for {
		name, err := y.notify.Next(ctx)
		if err != nil || name == "" {
			return // a backup works without notifications
		}
		if name == service.SyncCancelRequest && !canceled {
			canceled = true
			close(y.canceled)
		}
		if fn != nil {
			fn(name)
		}
	}
}

// Canceled is closed when the user cancels on the device.
func (y *Sync) Canceled() <-chan struct{} { return y.canceled }

// Files returns the connection to the device's media files. It is valid until
// Release.
func (y *Sync) Files() *afc.Client { return y.files }

// Lock announces the backup and takes the lock. If another program does not
// release it within some seconds, the error is ErrSyncBusy.
func (y *Sync) Lock(ctx context.Context) error {
	y.posted = true
	if err := y.post(ctx, service.SyncWillStart); err != nil {
		return err
	}
	f, err := y.files.Open(ctx, syncLockFile, afc.ReadWrite)
	if err != nil {
		return err
	}
	if err := y.post(ctx, service.SyncLockRequest); err != nil {
		return err
	}
	err = f.Lock(ctx, y.tries, y.interval)
	if errors.Is(err, afc.WouldBlock) {
		err = fmt.Errorf("%w: %w", ErrSyncBusy, err)
	}
	if err != nil {
		// The device closes open files when the connection ends.
		_ = f.Close(ctx)
		return err
	}
	y.lock = f
	return y.post(ctx, service.SyncDidStart)
}

// post posts a notification over a new session and connection. Those of OpenSync
// are idle during a backup, so the device may have closed them.
func (y *Sync) post(ctx context.Context, name string) error {
	c, err := y.mux.Service(ctx, y.entry, service.NotificationProxy, false)
	if err != nil {
		return err
	}
	n := service.NewNotify(c)
	if err := n.Post(ctx, name); err != nil {
		n.Close()
		return err
	}
	// The notification was posted; errors of the shutdown do not matter.
	_ = n.Shutdown(ctx)
	return ctx.Err()
}

// Release releases the lock, posts syncDidFinish even if the release failed,
// and closes all connections. It works after ctx ended.
func (y *Sync) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var errs []error
	if y.lock != nil {
		errs = append(errs, y.lock.Unlock(ctx), y.lock.Close(ctx))
		y.lock = nil
	}
	// An error means that the device has already closed the connection.
	_ = y.files.Close()
	if y.posted {
		errs = append(errs, y.post(ctx, service.SyncDidFinish))
		y.posted = false
	}
	y.stop()
	y.listener.Wait()
	_ = y.notify.Close()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the synchronisation with %s: %w", y.entry.UDID, err)
	}
	return nil
}

// SyncLock calls OpenSync and Lock.
func (m *Mux) SyncLock(ctx context.Context, e Entry, fn func(notification string)) (*Sync, error) {
	y, err := m.OpenSync(ctx, e, fn)
	if err != nil {
		return nil, err
	}
	if err := y.Lock(ctx); err != nil {
		// The first error is more useful than an error of Release.
		_ = y.Release(ctx)
		return nil, err
	}
	return y, nil
}
