package agent

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
)

// Options describe an agent. Content and StateDir are required, except for a Rehearsal,
// which requires Device.
type Options struct {
	Content devicefiles.Source
	// Device describes the device; the zero value means the device of Content.
	Device mobilesync.Device
	// StateDir is a folder for working copies of manifests and for restored
	// content. The agent never removes restored content.
	StateDir string
	// Password is the backup password; empty means unencrypted backups.
	Password string
	// RealRounds gives keybags the round counts of real devices. Such a keybag takes
	// seconds to unlock.
	RealRounds bool
	Seed       uint64
	Clock      func() time.Time // nil means time.Now

	// Version is the version of DeviceLink: 300 (as up to iOS 13) or 400; 0 means 300.
	Version int64
	// OldNames makes the agent send MoveFiles and RemoveFiles instead of MoveItems and
	// RemoveItems.
	OldNames bool
	// NoListing makes the agent list no folders at the end of a run. Some versions of
	// iOS do the same.
	NoListing bool

	// Rehearsal, if not nil, judges what a host sends in a restore. With a Rehearsal the
	// agent writes nothing, keeps its content, and refuses everything but restores.
	Rehearsal Rehearsal

	// Patience is how long the agent waits for an answer of the host; 0 means 5
	// minutes.
	Patience time.Duration
	// Script lists the faults that will happen.
	Script faults.Script
	// OnStep is called when a conversation reaches a step.
	OnStep func(faults.Step)
	// OnBegin is called when an operation begins. At this point a device asks for its
	// passcode. The context ends when the host disconnects.
	OnBegin func(context.Context)
	// OnViolation is called with each new violation.
	OnViolation func(text string)
	// Locked reports whether the device has not been unlocked since it was switched
	// on. Such a device cannot read its files. nil means always false.
	Locked func() bool
	// OnEncryption is called after the backup password was set (on is true) or removed
	// (on is false).
	OnEncryption func(on bool)
	// Applications returns /iTunesRestore/RestoreApplications.plist, which the host
	// writes before a restore. Applications may be nil.
	Applications func() ([]byte, bool)
}

// Agent is the backup agent of a simulated device. It serves one conversation at a
// time. Its methods may be called from any goroutine.
type Agent struct {
	opts   Options
	device mobilesync.Device
	busy   sync.Mutex // held during a conversation
	count  uint64     // number of conversations begun

	mu         sync.Mutex
	content    devicefiles.Source
	generation int // number of times that content was replaced
	password   []byte
	faults     *faults.Player
	runs       []*Run
	violations []string

	// The fields from here on are used only during a conversation.
	unfinished *cache // the cache of an interrupted run, or nil
	backups    map[[sha256.Size]byte]*digests
	expected   expected
	restored   int
}

// New returns an agent.
func New(o Options) (*Agent, error) {
	if o.Rehearsal != nil {
		o.Content = devicefiles.Empty(o.Device)
	} else if o.Content == nil || o.StateDir == "" {
		return nil, errors.New("simulated device: content or state folder is missing")
	}
	if err := o.Script.Check(); err != nil {
		return nil, fmt.Errorf("simulated device: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Version == 0 {
		o.Version = 300
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Device.UDID == "" {
		o.Device = o.Content.Device()
	}
	if o.Device.UDID == "" {
		return nil, errors.New("simulated device: UDID is missing")
	}
	return &Agent{opts: o, device: o.Device, content: o.Content, password: []byte(o.Password), faults: faults.NewPlayer(o.Script),
		backups: map[[sha256.Size]byte]*digests{}}, nil
}

// Device returns the device.
func (a *Agent) Device() mobilesync.Device { return a.device }

// Content returns what is on the device now.
func (a *Agent) Content() devicefiles.Source {
	c, _ := a.current()
	return c
}

func (a *Agent) current() (devicefiles.Source, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.content, a.generation
}

// SetContent replaces what is on the device. It may be called during a backup, which
// then sends the changes in a second round. The agent does not close the old content.
func (a *Agent) SetContent(c devicefiles.Source) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.content = c
	a.generation++
}

// SetScript replaces the faults.
func (a *Agent) SetScript(s faults.Script) error {
	if err := s.Check(); err != nil {
		return fmt.Errorf("simulated device: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = faults.NewPlayer(s)
	return nil
}

// WillEncrypt reports whether a backup password is set.
func (a *Agent) WillEncrypt() bool { return len(a.secret()) > 0 }

func (a *Agent) secret() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.password)
}

// Password returns the backup password; empty means unencrypted backups.
func (a *Agent) Password() string { return string(a.secret()) }

// SetPassword changes the backup password, but not the keybag of any existing backup.
// An empty password ends encryption.
func (a *Agent) SetPassword(password string) { a.setPassword([]byte(password)) }

func (a *Agent) setPassword(p []byte) {
	a.mu.Lock()
	a.password = slices.Clone(p)
	a.mu.Unlock()
	if a.opts.OnEncryption != nil {
		a.opts.OnEncryption(len(p) > 0)
	}
}

// Forget drops what the agent knows of an interrupted run. A restart of a device has
// this effect.
func (a *Agent) Forget() {
	a.busy.Lock()
	defer a.busy.Unlock()
	a.unfinished = nil
}

// Violations returns what hosts did wrong: the first hundred violations at most.
func (a *Agent) Violations() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.violations)
}

const maxViolations = 100

func (a *Agent) violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	a.mu.Lock()
	more := len(a.violations) < maxViolations
	if more {
		a.violations = append(a.violations, text)
	}
	a.mu.Unlock()
	if more && a.opts.OnViolation != nil {
		a.opts.OnViolation(text)
	}
}

// Runs returns the reports of all operations. The last operation may still be
// running.
func (a *Agent) Runs() []Run {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Run, len(a.runs))
	for i, r := range a.runs {
		out[i] = *r
		out[i].Steps = slices.Clone(r.Steps)
	}
	return out
}

// LastRun returns the report of the last operation, or the zero Run.
func (a *Agent) LastRun() Run {
	if runs := a.Runs(); len(runs) > 0 {
		return runs[len(runs)-1]
	}
	return Run{}
}

// Run is the report of an operation.
type Run struct {
	Operation string // as the host named it: Backup, Restore, ChangePassword …
	UUID      string // the UUID that Status.plist of a backup has
	Full      bool
	Resumed   string        // the SnapshotState of the interrupted run, or ""
	Rounds    int           // number of rounds of uploads
	Steps     []faults.Step // steps reached; repeats in a row count once

	Files   int   // data files sent or, in a restore, received
	Bytes   int64 // total size of these files
	Kept    int   // files not sent because they are unchanged
	Resent  int   // files sent again, although the interrupted run had sent them
	Spared  int   // files not sent because the interrupted run had sent them
	Moved   int
	Removed int // files that the device no longer has
	Failed  int // files that could not be read

	Options      RestoreOptions // the options of a restore
	Applications int            // number of apps in RestoreApplications.plist; -1 without that file

	Code int64  // ErrorCode of the response; -1 without a response
	Err  string // the error in the response, or why there was no response
}

// note changes the report of the running operation.
func (a *Agent) note(r *Run, change func(*Run)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(r)
}

// stream returns the random stream with a name and a number. Equal options give
// equal bytes.
func (a *Agent) stream(name string, n uint64) io.Reader {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], a.opts.Seed)
	mac := hmac.New(sha256.New, b[:])
	binary.LittleEndian.PutUint64(b[:], n)
	mac.Write(b[:])
	mac.Write([]byte(a.device.UDID))
	mac.Write([]byte(name))
	return rand.NewChaCha8([32]byte(mac.Sum(nil)))
}

func (a *Agent) rounds() keybag.NewOptions {
	if a.opts.RealRounds {
		return keybag.NewOptions{}
	}
	return keybag.NewOptions{Iter: 20, DPIC: 50}
}

// Serve holds a conversation with a host and closes conn. The error is nil if the
// conversation ended regularly, even if the response had an error code.
func (a *Agent) Serve(ctx context.Context, conn net.Conn) error {
	a.busy.Lock()
	defer a.busy.Unlock()
	a.count++
	a.mu.Lock()
	player := a.faults
	a.mu.Unlock()
	w := faults.NewConn(conn, player)
	defer w.Close()
	defer context.AfterFunc(ctx, func() { w.Close() })()
	link := devicelink.New(w, devicelink.Options{
		Busy: a.opts.Patience, Write: a.opts.Patience, MaxMessage: maxMessage, MaxFrame: devicelink.MaxFrame, Device: true,
	})
	t := &session{Client: hostfiles.New(ctx, link, a.violate), agent: a, ctx: ctx, conn: w, link: link, faults: player}
	err := t.serve()
	if ctx.Err() != nil {
		return fmt.Errorf("simulated device %s: %w", a.device.UDID, ctx.Err())
	}
	if err != nil && !errors.Is(err, hostfiles.ErrOver) {
		return fmt.Errorf("simulated device %s: %w", a.device.UDID, err)
	}
	return nil
}

// maxMessage is the greatest length of a host's message, in bytes. It has room for a
// listing of a million files.
const maxMessage = 256 << 20
