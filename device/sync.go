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

// ErrSyncBusy says that another program synchronises with the device.
var ErrSyncBusy = errors.New("another program on a computer is synchronising or backing up the device")

const (
	syncLockFile = "/com.apple.itunes.lock_sync"
	lockTries    = 50
	lockInterval = 200 * time.Millisecond
	// releaseTimeout bounds Release, which also runs when all else is over.
	releaseTimeout = 15 * time.Second
)

// Sync keeps other programs away from a device while it is backed up or
// restored, and hears of what people do on it meanwhile. Order: OpenSync, the
// backup service's own beginning, Lock, the backup, Release.
type Sync struct {
	mux    *Mux
	entry  Entry
	notify *service.Notify
	files  *afc.Client
	lock   *afc.File // nil: not held
	posted bool      // syncWillStart was

	tries    int // to take the lock
	interval time.Duration

	canceled chan struct{}
	stop     context.CancelFunc
	heard    sync.WaitGroup
}

// OpenSync opens the connections. on, if not nil, is told of each notification
// that the device sends, by its name (see package service), from a goroutine of
// Sync. Release has to be called in the end.
func (m *Mux) OpenSync(ctx context.Context, e Entry, on func(notification string)) (*Sync, error) {
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
	// It listens until Release, also after ctx has ended.
	listen, stop := context.WithCancel(context.WithoutCancel(ctx))
	y.stop = stop
	y.heard.Go(func() { y.listen(listen, on) })
	return y, nil
}

func (y *Sync) listen(ctx context.Context, on func(string)) {
	canceled := false
	for {
		name, err := y.notify.Next(ctx)
		if err != nil || name == "" {
			return // without notifications a backup works, too
		}
		if name == service.SyncCancelRequest && !canceled {
			canceled = true
			close(y.canceled)
		}
		if on != nil {
			on(name)
		}
	}
}

// Canceled is closed when somebody cancels on the device.
func (y *Sync) Canceled() <-chan struct{} { return y.canceled }

// Files is the connection to the device's media files, for as long as Sync is
// open.
func (y *Sync) Files() *afc.Client { return y.files }

// Lock announces the backup and takes the lock. It waits some seconds for
// another program; then the error is ErrSyncBusy.
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
		// The device closes what is open when the connection ends.
		_ = f.Close(ctx)
		return err
	}
	y.lock = f
	return y.post(ctx, service.SyncDidStart)
}

// post posts over a session and a connection of its own: those of the beginning
// may be idle for longer than a device keeps them.
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
	// It has been posted; how the goodbye ends does not matter.
	_ = n.Shutdown(ctx)
	return ctx.Err()
}

// Release gives the lock back, tells the device that this was all, and closes
// everything. It does so also when ctx has ended, and posts syncDidFinish
// whatever fails before.
func (y *Sync) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var errs []error
	if y.lock != nil {
		errs = append(errs, y.lock.Unlock(ctx), y.lock.Close(ctx))
		y.lock = nil
	}
	// A connection that the device has ended already is closed as well.
	_ = y.files.Close()
	if y.posted {
		errs = append(errs, y.post(ctx, service.SyncDidFinish))
		y.posted = false
	}
	y.stop()
	y.heard.Wait()
	_ = y.notify.Close()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the synchronisation with %s: %w", y.entry.UDID, err)
	}
	return nil
}

// SyncLock is OpenSync and Lock.
func (m *Mux) SyncLock(ctx context.Context, e Entry, on func(notification string)) (*Sync, error) {
	y, err := m.OpenSync(ctx, e, on)
	if err != nil {
		return nil, err
	}
	if err := y.Lock(ctx); err != nil {
		// Why the lock was not taken says more than what its end says.
		_ = y.Release(ctx)
		return nil, err
	}
	return y, nil
}
