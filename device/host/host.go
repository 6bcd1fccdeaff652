// Package host is a backup, a restore, or a change of the backup password of one
// device from beginning to end: what is looked at before, the device's services
// in their order, the conversation, and what becomes of its outcome.
//
// # What it promises
//
//   - Nothing on the device is touched before all that can be checked is checked.
//   - The device is told that it is over, whatever the outcome.
//   - A backup that fails leaves all snapshots as they were, and says what of it
//     is kept for the next one.
//   - On one computer one thing at a time is done to a device; between computers
//     the device's own lock sees to that.
//
// # What it never does
//
// It does not lock repositories or load their indexes, prints nothing, and asks
// nobody but by the functions that it is given.
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

// Host is the computer's side of all that happens.
type Host struct {
	Mux  *device.Mux
	Repo *repo.Repo // with its index loaded
	// LockDir is a folder of the user for locks that keep two processes from
	// using one device; made if missing.
	LockDir string
	Name    string // of the computer, for records
	Program string // and version, for records
	Now     func() time.Time
	Random  io.Reader // must be cryptographic
	Limits  backup2.Options
	// Bytes writes a number of bytes for people, as whoever shows the texts of
	// this package does it elsewhere. By default in full.
	Bytes func(int64) string
}

func (h Host) bytes(n int64) string {
	if h.Bytes == nil {
		return fmt.Sprintf("%d bytes", n)
	}
	return h.Bytes(n)
}

// Observer is told how something goes on: from one goroutine at a time, but for
// Prompt. Texts may hold what a device's owner has written and are not fit for a
// terminal as they are.
type Observer interface {
	backup2.Observer
	// Remark is called for what is good to know.
	Remark(text string)
	// Prompt is called when the device asks for its passcode (true), and when it
	// does not any more.
	Prompt(on bool)
}

// The phases beside those of backup2.
const (
	PhaseConnecting backup2.Phase = "connecting"
	PhaseLocking    backup2.Phase = "waiting for other programs"
	PhaseInfo       backup2.Phase = "reading apps"
	PhaseStoring    backup2.Phase = "storing"
	PhaseUnlocking  backup2.Phase = "unlocking"
)

var (
	// ErrInUse says that another process of this computer uses the device.
	ErrInUse = errors.New("another snap is at work with this device")
	// ErrRefused says that a check before the beginning has failed. The device
	// was not touched.
	ErrRefused = errors.New("refused")
	// ErrNoRoom says that nothing but room on the device speaks against a restore.
	ErrNoRoom = errors.New("it does not fit on the device")
	// ErrCancelledOnDevice says that somebody pressed Cancel on the device.
	ErrCancelledOnDevice = errors.New("cancelled on the device")
)

// interrupted is the end of the caller's context in people's words.
type interrupted struct{ error }

func (interrupted) Error() string   { return "interrupted" }
func (i interrupted) Unwrap() error { return i.error }

// refuse makes an error that is ErrRefused.
func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

type refusal string

func (r refusal) Error() string { return string(r) }

// Is makes errors.Is(err, ErrRefused) true.
func (refusal) Is(target error) bool { return target == ErrRefused }

// describe describes a device that trusts this computer; one that does not is an
// error that says why.
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
		_ = s.Close() // it has let this computer in meanwhile
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

// mentions keeps an Observer from being called by two goroutines at once.
type mentions struct {
	mu sync.Mutex
	o  Observer
}

func (m *mentions) Phase(p backup2.Phase) { m.do(func() { m.o.Phase(p) }) }
func (m *mentions) Progress(p backup2.Progress) {
	m.do(func() { m.o.Progress(p) })
}
func (m *mentions) Warning(text string) { m.do(func() { m.o.Warning(text) }) }
func (m *mentions) Remark(text string)  { m.do(func() { m.o.Remark(text) }) }
func (m *mentions) Prompt(on bool)      { m.do(func() { m.o.Prompt(on) }) }

func (m *mentions) do(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// call is a device with its backup service at the other end.
type call struct {
	*backup2.Session
	sync *device.Sync
	o    Observer
	// ctx ends with that of the caller, and when somebody cancels on the device.
	ctx    context.Context
	cancel context.CancelCauseFunc
	beats  sync.WaitGroup
	end    context.CancelFunc // of heartbeat and watcher
}

// dial opens what a conversation needs, in the order in which devices expect
// it. hang has to be called in the end.
func (h Host) dial(ctx context.Context, e device.Entry, o Observer) (*call, error) {
	c := &call{o: o}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	c.end = end
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
		c.hang(ctx)
		return nil, err
	}
	c.beats.Go(func() {
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
			// A device that beats no more ends the connections: that is noticed.
			c.beats.Go(func() { _ = service.Heartbeat(background, conn) })
		}
	}
	conn, err := h.Mux.Service(ctx, e, backupService, true)
	if err == nil {
		c.Session, err = backup2.Dial(ctx, conn, h.Limits)
	}
	if err != nil {
		c.hang(ctx)
		return nil, err
	}
	return c, nil
}

// hang ends everything. The device is told so even when ctx has ended; when it
// is gone, that goes unheard.
func (c *call) hang(ctx context.Context) {
	c.end()
	if c.sync != nil {
		_ = c.sync.Release(ctx)
	}
	if c.Session != nil {
		_ = c.Close()
	}
	c.beats.Wait()
	c.cancel(nil)
}

// why makes an error of a conversation say whether somebody cancelled, and
// where.
func (c *call) why(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return interrupted{ctx.Err()}
	case errors.Is(context.Cause(c.ctx), ErrCancelledOnDevice):
		return ErrCancelledOnDevice
	case linkEnded(err) && !errors.Is(err, backup2.ErrLinkLost) && !errors.Is(err, repo.ErrDamaged):
		return fmt.Errorf("%w: %w", backup2.ErrLinkLost, err)
	}
	return err
}

// linkEnded reports whether an error is what a connection gives that the other
// side, or the cable, has ended.
func linkEnded(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET},
		func(end error) bool { return errors.Is(err, end) })
}
