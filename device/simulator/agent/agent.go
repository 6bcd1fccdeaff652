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

// Options say what device is played, and how. Content and StateDir are needed.
type Options struct {
	Content devicefiles.Source
	// Device is whose backups these are; the zero value means that of Content.
	Device mobilesync.Device
	// StateDir is a folder for working copies of manifests and for what is
	// restored. The agent makes folders of its own in it and never removes
	// restored content.
	StateDir string
	// Password is the backup password; empty means unencrypted backups.
	Password string
	// RealRounds gives keybags the round counts of real devices, which cost
	// seconds to open.
	RealRounds bool
	Seed       uint64
	Clock      func() time.Time // nil means time.Now

	// Version is that of DeviceLink: 300 as up to iOS 13, or 400; 0 means 300.
	Version int64
	// OldNames sends MoveFiles and RemoveFiles in place of MoveItems and
	// RemoveItems.
	OldNames bool
	// NoListing leaves out the listings at the end of a run, as some versions
	// of iOS do.
	NoListing bool

	// Patience is how long the agent waits for the host's answers, and for more
	// inside of one; 0 means 5 minutes.
	Patience time.Duration
	// Script is what goes wrong.
	Script faults.Script
	// OnStep is called when a conversation reaches a step.
	OnStep func(faults.Step)
	// OnBegin is called when an operation begins, before anything is said: where
	// a device asks for its passcode. Its context ends when the host leaves.
	OnBegin func(context.Context)
	// OnViolation is called with what is added to Violations.
	OnViolation func(text string)
	// Locked reports whether nobody has unlocked the device since it was
	// switched on, so that it cannot read its files; nil means that it can.
	Locked func() bool
	// OnEncryption is called when the backup password was set (true) or removed.
	OnEncryption func(on bool)
	// Applications returns what the host put at
	// /iTunesRestore/RestoreApplications.plist, false if nothing; nil means that
	// nobody can tell.
	Applications func() ([]byte, bool)
}

// Agent is the backup agent of one simulated device. It serves one conversation
// at a time; its methods may be called by any goroutine.
type Agent struct {
	opts  Options
	me    mobilesync.Device
	busy  sync.Mutex // held by the conversation that is served
	count uint64     // conversations begun

	mu         sync.Mutex
	content    devicefiles.Source
	generation int // of content
	password   []byte
	faults     *faults.Player
	runs       []*Run
	violations []string

	// Known only to the conversation that is served.
	unfinished *cache // what was sent in a run that broke off
	sets       map[[sha256.Size]byte]*set
	told       told
	restored   int
}

// New returns an agent that holds no conversation yet.
func New(o Options) (*Agent, error) {
	if o.Content == nil || o.StateDir == "" {
		return nil, errors.New("simulated device: it needs content and a folder for its state")
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
		return nil, errors.New("simulated device: it has no UDID")
	}
	return &Agent{opts: o, me: o.Device, content: o.Content, password: []byte(o.Password), faults: faults.NewPlayer(o.Script),
		sets: map[[sha256.Size]byte]*set{}}, nil
}

// Device returns whose backups these are.
func (a *Agent) Device() mobilesync.Device { return a.me }

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

// SetContent changes what is on the device, at any time: a backup that is under
// way sends what changed in a second round. The agent does not close what it
// had.
func (a *Agent) SetContent(c devicefiles.Source) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.content = c
	a.generation++
}

// SetScript changes what goes wrong from now on.
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

// SetPassword changes the backup password, as another host does it that has no
// backup of the device; empty ends encryption.
func (a *Agent) SetPassword(password string) { a.setPassword([]byte(password)) }

func (a *Agent) setPassword(p []byte) {
	a.mu.Lock()
	a.password = slices.Clone(p)
	a.mu.Unlock()
	if a.opts.OnEncryption != nil {
		a.opts.OnEncryption(len(p) > 0)
	}
}

// Forget drops what the agent knows of a run that broke off, as after a restart
// of the device.
func (a *Agent) Forget() {
	a.busy.Lock()
	defer a.busy.Unlock()
	a.unfinished = nil
}

// Violations returns what hosts did wrong so far, at most the first hundred.
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

// Runs returns copies of the accounts of all operations so far, the last one
// perhaps of one that is under way.
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

// LastRun returns the account of the last operation, or the zero Run.
func (a *Agent) LastRun() Run {
	if runs := a.Runs(); len(runs) > 0 {
		return runs[len(runs)-1]
	}
	return Run{}
}

// Run tells what happened in one operation.
type Run struct {
	Operation string // as the host named it: Backup, Restore, ChangePassword …
	UUID      string // of a backup, as in Status.plist
	Full      bool
	Resumed   string        // the SnapshotState that a broken run had left, or ""
	Rounds    int           // of uploads
	Steps     []faults.Step // each once for every time it was reached in a row

	Files   int   // data files sent, or in a restore received
	Bytes   int64 // of them
	Kept    int   // unchanged files of the old backup, not sent
	Resent  int   // files sent though the broken run had sent them
	Spared  int   // files not sent as the broken run had sent them
	Moved   int
	Removed int // files of the old backup that the device no longer has
	Failed  int // files that could not be read

	Options      RestoreOptions // of a restore
	Applications int            // that a restore found in RestoreApplications.plist; -1 if there is none

	Code int64  // ErrorCode of the Response; -1 as long as there is none
	Err  string // why there was none, or what the Response said
}

// note changes the account of the operation under way.
func (a *Agent) note(r *Run, change func(*Run)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(r)
}

// stream returns randomness with a name: the same options give the same.
func (a *Agent) stream(name string, n uint64) io.Reader {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], a.opts.Seed)
	mac := hmac.New(sha256.New, b[:])
	binary.LittleEndian.PutUint64(b[:], n)
	mac.Write(b[:])
	mac.Write([]byte(a.me.UDID))
	mac.Write([]byte(name))
	return rand.NewChaCha8([32]byte(mac.Sum(nil)))
}

func (a *Agent) rounds() keybag.NewOptions {
	if a.opts.RealRounds {
		return keybag.NewOptions{}
	}
	return keybag.NewOptions{Iter: 20, DPIC: 50}
}

// Serve holds one conversation with a host and closes conn. The error is nil
// when the host or the device ended it in the way it should end; a Response
// with an error code is such an end.
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
		return fmt.Errorf("simulated device %s: %w", a.me.UDID, ctx.Err())
	}
	if err != nil && !errors.Is(err, hostfiles.ErrOver) {
		return fmt.Errorf("simulated device %s: %w", a.me.UDID, err)
	}
	return nil
}

// maxMessage bounds a message of a host: a listing of a million files.
const maxMessage = 256 << 20
