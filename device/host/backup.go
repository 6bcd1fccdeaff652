package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/ingest/receive"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
)

// BackupOptions say how to back up.
type BackupOptions struct {
	Full       bool // all files anew
	Tags       []string
	SpoolDir   string // see receive.Options
	SpoolLimit int64
	// Passwords are backup passwords to try before those that the repository
	// keeps for the device.
	Passwords [][]byte
	// Ask, if not nil, asks a person for the backup password of a device that
	// encrypts; an empty answer is none. It is called before the device is asked for
	// anything, and at the end if no password opens what has come.
	Ask func(ctx context.Context, info *device.Info, why Doubt) ([]byte, error)
	// KeepPassword keeps a password that was given or typed, and that has opened
	// the backup, in the repository.
	KeepPassword bool
	Workers      int
	Progress     *blob.Progress // of what is done when the device has finished
	// CheckpointBytes and CheckpointTime: see receive.Options.
	CheckpointBytes int64
	CheckpointTime  time.Duration
}

// BackupResult says what a backup has brought.
type BackupResult struct {
	Info   *device.Info
	Parent *repo.Snapshot // nil for none
	*receive.Result
}

// Kept is what an interrupted backup has left in the repository for the next
// one.
type Kept struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Interrupted is a backup that did not come to its end. It wraps the reason.
type Interrupted struct {
	Err  error
	Kept Kept
}

func (e *Interrupted) Error() string {
	if e.Kept.Files == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v; what was received is kept (%d files), and the next backup goes on from there", e.Err, e.Kept.Files)
}

func (e *Interrupted) Unwrap() error { return e.Err }

// Backup backs a device up into a snapshot. After an error there is none; the
// error is an *Interrupted once the device has been asked for its files.
func (h Host) Backup(ctx context.Context, e device.Entry, opt BackupOptions, observer Observer) (*BackupResult, error) {
	o := &mentions{o: observer}
	o.Phase(PhaseConnecting)
	info, err := h.describe(ctx, e)
	if err != nil {
		return nil, err
	}
	release, err := h.claim(e.UDID)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := h.preflight(ctx, info, o); err != nil {
		return nil, err
	}
	keys, err := h.newOpener(ctx, info, &opt, o)
	if err != nil {
		return nil, err
	}
	defer keys.close()
	c, err := h.dial(ctx, e, o)
	if err != nil {
		return nil, err
	}
	hang := func() {
		if c != nil {
			c.hang(ctx)
			c = nil
		}
	}
	defer hang()
	o.Phase(PhaseLocking)
	if err := c.sync.Lock(c.ctx); err != nil {
		return nil, c.why(ctx, err)
	}
	o.Phase(PhaseInfo)
	plist, err := h.Mux.InfoPlist(c.ctx, e, c.sync.Files(), device.InfoOptions{Now: h.Now(), Random: h.Random, Missing: func(what string, err error) {
		o.Warning(fmt.Sprintf("Info.plist lacks %s: %v", what, err))
	}})
	if err != nil {
		return nil, c.why(ctx, err)
	}
	run, err := h.newRun(c.ctx, info, keys, opt)
	if err != nil {
		return nil, c.why(ctx, err)
	}
	for _, p := range run.Problems() {
		o.Warning(p)
	}
	o.Remark(h.summary(ctx, info, run.Parent(), opt.Full))
	if r := run.Resumed(); r.Files > 0 {
		o.Remark(fmt.Sprintf("it goes on with the backup that broke off on %s: %d files (%s) need not come again",
			r.Since.Local().Format("2006-01-02 15:04"), r.Files, h.bytes(r.Bytes)))
	}
	if err := run.SetInfo(plist); err != nil {
		return nil, h.interrupted(ctx, run, info, err, false)
	}
	announcePasscode(info, o)
	// A full backup that broke off is gone on with; asked for a full one, the device
	// would send all of it again.
	full := opt.Full && run.Resumed().Files == 0
	err = c.Backup(c.ctx, backup2.BackupRequest{UDID: e.UDID, Full: full}, run, o)
	if err != nil {
		// What the device itself calls damaged is not worth going on with.
		err, damaged := c.why(ctx, err), errors.Is(err, backup2.ErrDamaged)
		hang()
		return nil, h.interrupted(ctx, run, info, err, damaged)
	}
	// All is here: the device may go.
	hang()
	o.Phase(PhaseStoring)
	res := &BackupResult{Info: info, Parent: run.Parent()}
	res.Result, err = run.Publish(ctx, receive.PublishOptions{Tags: opt.Tags, Workers: opt.Workers, Progress: opt.Progress})
	if err != nil {
		if ctx.Err() != nil {
			err = interrupted{ctx.Err()}
		}
		return nil, h.interrupted(ctx, run, info, err, false)
	}
	return res, nil
}

func (h Host) newRun(ctx context.Context, info *device.Info, keys *opener, opt BackupOptions) (*receive.Receiver, error) {
	o := receive.Options{
		UDID: info.UDID, Device: info.Name, Full: opt.Full,
		Encrypted: info.WillEncrypt != nil && *info.WillEncrypt,
		SpoolDir:  opt.SpoolDir, SpoolLimit: opt.SpoolLimit, CheckpointBytes: opt.CheckpointBytes, CheckpointTime: opt.CheckpointTime,
		Host: h.Name, Program: h.Program, Now: h.Now,
	}
	if keys != nil {
		o.Unlock = keys.unlock
	}
	return receive.New(ctx, h.Repo, o)
}

// closeTime is how long keeping what was received may take at the end.
const closeTime = 2 * time.Minute

// interrupted ends a run and says what is kept of it.
func (h Host) interrupted(ctx context.Context, run *receive.Receiver, info *device.Info, err error, drop bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if drop {
		return &Interrupted{Err: errors.Join(err, run.Discard(ctx))}
	}
	// What cannot be kept is what the reason said already, as a rule.
	if failed := run.Close(ctx); failed != nil && !errors.Is(err, failed) {
		err = errors.Join(err, failed)
	}
	out := &Interrupted{Err: err}
	list, _, listErr := h.Repo.Unfinished(ctx)
	if listErr != nil {
		return out
	}
	for _, u := range list {
		if u.Kind == repo.UnfinishedBackup && repo.SameDevice(u.UDID, info.UDID) {
			out.Kept = Kept{u.Files, u.Bytes}
		}
	}
	return out
}
