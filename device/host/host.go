// Package host runs a backup, restore or password change of one device from
// beginning to end. It makes the checks beforehand, connects to the device's
// services in the right order, speaks the protocol, and returns the outcome.
//
// # What it promises
//
//   - Everything that can be checked is checked before the device is touched.
//   - The device is told when an operation ends, whatever the outcome.
//   - A failed backup changes no snapshot. The error says how much of the
//     backup is kept for the next one.
//   - Only one process of a computer uses a device at a time. The device's own
//     lock keeps several computers from using it at once.
//
// # What it never does
//
// It does not lock repositories or load their indexes, prints nothing, and asks
// people only through the functions that it is given.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/protocol/service"
	"github.com/snap-backup/snap/repo"
)

// backupService is the service that backs up and restores.
const backupService = "com.apple.mobilebackup2"

// Host is a computer that backs up and restores devices.
type Host struct {
	Mux  *device.Mux
	Repo *repo.Repo // with its index loaded
	// LockDir is the user's folder for lock files, which keep two processes from
	// using one device. It is created if missing. It may be empty if no other process
	// can reach the device.
	LockDir string
	Name    string // of the computer, for records
	Program string // and version, for records
	Now     func() time.Time
	Random  io.Reader // must be cryptographic
	Limits  backup2.Options
	// Bytes formats a number of bytes for people. If nil, all digits are shown.
	Bytes func(int64) string
}

func (h Host) bytes(n int64) string {
	if h.Bytes == nil {
		return fmt.Sprintf("%d bytes", n)
	}
	return h.Bytes(n)
}

// Observer is told about progress, by one goroutine at a time. Texts may
// contain names that a device's owner has chosen. They must be cleaned before
// they are shown on a terminal.
type Observer interface {
	backup2.Observer
	// Remark is called for useful information.
	Remark(text string)
	// Prompt is called when the device begins (true) and ends (false) to ask for
	// its passcode.
	Prompt(on bool)
}

// The phases in addition to those of backup2.
const (
	PhaseConnecting backup2.Phase = "connecting"
	PhaseLocking    backup2.Phase = "waiting for other programs"
	PhaseInfo       backup2.Phase = "reading apps"
	PhaseStoring    backup2.Phase = "storing"
	PhaseUnlocking  backup2.Phase = "unlocking"
)

var (
	// ErrInUse says that another process of this computer is using the device.
	ErrInUse = errors.New("another snap process is using this device")
	// ErrRefused says that a check beforehand has failed. The device was not
	// touched.
	ErrRefused = errors.New("refused")
	// ErrDamaged says that a restore was refused only because files of the snapshot
	// are missing or damaged, or because the device had not finished the backup.
	ErrDamaged = errors.New("the backup is not complete")
	// ErrLost says that the repository has lost a part of the snapshot.
	ErrLost = errors.New("the repository has lost a part of it")
	// ErrNoRoom says that a restore was refused only because the device lacks room.
	ErrNoRoom = errors.New("the snapshot does not fit on the device")
	// ErrCancelledOnDevice says that Cancel was pressed on the device.
	ErrCancelledOnDevice = errors.New("cancelled on the device")
)

// canceled wraps the error of the caller's context and replaces its text by
// one for people.
type canceled struct{ error }

func (canceled) Error() string   { return "interrupted" }
func (c canceled) Unwrap() error { return c.error }

// refuse makes an error that matches ErrRefused.
func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

type refusal string

func (r refusal) Error() string { return string(r) }

// Is makes errors.Is(err, ErrRefused) true.
func (refusal) Is(target error) bool { return target == ErrRefused }

// describe describes a device. If the device does not trust this computer, the
// error says why.
func (h Host) describe(ctx context.Context, e device.Entry) (*device.Info, error) {
	info, err := h.Mux.Describe(ctx, e)
	if err != nil {
		return nil, err
	}
	if info.Trust != device.Trusted {
		s, err := h.Mux.Session(ctx, e)
		if err != nil {
			return nil, err
		}
		_ = s.Close() // the device trusts this computer now
		return h.Mux.Describe(ctx, e)
	}
	return info, nil
}

func nameOf(info *device.Info) string {
	if info.Name != "" {
		return info.Name
	}
	return info.UDID
}

// serialObserver keeps an Observer from being called by two goroutines at once.
type serialObserver struct {
	mu sync.Mutex
	o  Observer
}

func (m *serialObserver) Phase(p backup2.Phase) { m.do(func() { m.o.Phase(p) }) }
func (m *serialObserver) Progress(p backup2.Progress) {
	m.do(func() { m.o.Progress(p) })
}
func (m *serialObserver) Warning(text string) { m.do(func() { m.o.Warning(text) }) }
func (m *serialObserver) Remark(text string)  { m.do(func() { m.o.Remark(text) }) }
func (m *serialObserver) Prompt(on bool)      { m.do(func() { m.o.Prompt(on) }) }

func (m *serialObserver) do(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// connection is a connection to a device's services.
type connection struct {
	*backup2.Session
	sync *device.Sync
	o    Observer
	// ctx ends when the caller's context ends or Cancel is pressed on the device.
	ctx    context.Context
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup     // heartbeat and the watch for Cancel
	stop   context.CancelFunc // ends tasks
	closed bool
}

// dial connects to the services of a device, in the order that devices expect. The
// caller must call close.
func (h Host) dial(ctx context.Context, e device.Entry, o Observer) (*connection, error) {
	c := &connection{o: o}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	o.Phase(PhaseConnecting)
	var err error
	c.sync, err = h.Mux.OpenSync(ctx, e, func(name string) {
		switch name {
		case service.PromptPresented:
			o.Prompt(true)
		case service.PromptDismissed:
			o.Prompt(false)
		}
	})
	if err != nil {
		c.close(ctx)
		return nil, err
	}
	c.tasks.Go(func() {
		select {
		case <-c.sync.Canceled():
			c.cancel(ErrCancelledOnDevice)
		case <-background.Done():
		}
	})
	if e.Link().Kind == device.Network {
		conn, err := h.Mux.Service(ctx, e, service.HeartbeatName, false)
		if err != nil {
			o.Warning(fmt.Sprintf("the Wi-Fi connection cannot be kept alive and may end: %v", err))
		} else {
			// The error is ignored: if the heartbeat ends, the device ends its connections,
			// and the operation fails.
			c.tasks.Go(func() { _ = service.Heartbeat(background, conn) })
		}
	}
	conn, err := h.Mux.Service(ctx, e, backupService, true)
	if err == nil {
		limits := h.Limits
		limits.Bytes = h.Bytes
		c.Session, err = backup2.Dial(ctx, conn, limits)
	}
	if err != nil {
		c.close(ctx)
		return nil, err
	}
	return c, nil
}

// close ends the connection, if it is open. The device is told even if ctx has
// ended.
func (c *connection) close(ctx context.Context) {
	if c.closed {
		return
	}
	c.closed = true
	c.stop()
	if c.sync != nil {
		_ = c.sync.Release(ctx)
	}
	if c.Session != nil {
		_ = c.Session.Close()
	}
	c.tasks.Wait()
	c.cancel(nil)
}

// explain returns err or, if the caller or the device's owner has canceled, an
// error that says so.
func (c *connection) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return canceled{ctx.Err()}
	case errors.Is(context.Cause(c.ctx), ErrCancelledOnDevice):
		return ErrCancelledOnDevice
	case linkEnded(err) && !errors.Is(err, backup2.ErrLinkLost) && !errors.Is(err, repo.ErrDamaged):
		return fmt.Errorf("%w: %w", backup2.ErrLinkLost, err)
	}
	return err
}

// linkEnded reports whether an error is that of a broken connection.
func linkEnded(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET},
		func(end error) bool { return errors.Is(err, end) })
}
