package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/ingest/receive"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
)

// BackupOptions say how to back up.
type BackupOptions struct {
	Full       bool // have the device send all files
	Tags       []string
	SpoolDir   string // see receive.Options
	SpoolLimit int64
	// Passwords are backup passwords to try before those that the repository
	// keeps for the device.
	Passwords [][]byte
	// Ask, if not nil, asks a person for the backup password of a device that
	// encrypts; an empty answer means none. It is called before the device is asked
	// for anything, and again at the end if no password unlocks the backup.
	Ask func(ctx context.Context, info *device.Info, why AskReason) ([]byte, error)
	// AskOnlyBefore does not call Ask again at the end.
	AskOnlyBefore bool
	// KeepPassword stores a given or typed password in the repository if it has
	// unlocked the backup.
	KeepPassword bool
	Workers      int
	Progress     *blob.Progress // of the work after the device has finished
	// CheckpointBytes and CheckpointTime: see receive.Options.
	CheckpointBytes int64
	CheckpointTime  time.Duration
	// IgnoreSpace backs up although the device wants more space than there is: see
	// receive.Options.
	IgnoreSpace bool
	// AllowIncomplete also stores a backup that breaks off or would otherwise be
	// refused. The snapshot says that it is not complete.
	AllowIncomplete bool
}

// BackupResult is the outcome of a backup.
type BackupResult struct {
	Info   *device.Info
	Parent *repo.Snapshot // nil if there is none
	*receive.Result
}

// Kept counts the files and bytes of an interrupted backup that the repository
// keeps for the next one.
type Kept struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Interrupted is a backup that was not completed. It wraps the reason.
type Interrupted struct {
	Err  error
	Kept Kept
	// Afresh is a command for starting afresh, so that the next backup does not continue this
	// one. It is set if this backup has itself continued an interrupted one.
	Afresh string
}

func (e *Interrupted) Error() string {
	if e.Kept.Files == 0 {
		return e.Err.Error()
	}
	text := fmt.Sprintf("%v; what was received so far is kept (%s), and the next backup continues from there", e.Err, words.Plural(e.Kept.Files, "file"))
	if e.Afresh != "" {
		text += fmt.Sprintf("; if it fails in the same way again, start afresh with %q", e.Afresh)
	}
	return text
}

func (e *Interrupted) Unwrap() error { return e.Err }

// Ready is a device whose backup can begin. The caller must call Close.
type Ready struct {
	h       Host
	e       device.Entry
	info    *device.Info
	opt     BackupOptions
	o       Observer
	keys    *unlocker
	release func()
}

// Ready makes the checks before a backup, and asks what a person must be asked before
// it. Until Close, no other process of this computer can use the device.
func (h Host) Ready(ctx context.Context, e device.Entry, opt BackupOptions, observer Observer) (*Ready, error) {
	o := &serialObserver{o: observer}
	o.Phase(PhaseConnecting)
	info, err := h.describe(ctx, e)
	if err != nil {
		return nil, err
	}
	d := &Ready{h: h, e: e, info: info, opt: opt, o: o}
	if d.release, err = h.claim(e.UDID); err != nil {
		return nil, err
	}
	err = h.preflight(ctx, info, o)
	if err == nil {
		d.keys, err = h.newUnlocker(ctx, info, &d.opt, o)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close clears the passwords and lets other processes use the device.
func (d *Ready) Close() {
	d.keys.close()
	d.release()
}

// Backup backs a device up into a snapshot. If AllowIncomplete is set, it can return both
// an error and a result: then it has stored an incomplete snapshot. If it returns only an
// error, it has made no snapshot. If Backup fails after the device was asked for its
// files, the error is an *Interrupted.
func (h Host) Backup(ctx context.Context, e device.Entry, opt BackupOptions, observer Observer) (*BackupResult, error) {
	r, err := h.Ready(ctx, e, opt, observer)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Backup(ctx)
}

// Backup is Host.Backup for a device that is ready.
func (d *Ready) Backup(ctx context.Context) (*BackupResult, error) {
	h, info, opt, o := d.h, d.info, d.opt, d.o
	r, broken := h.receive(ctx, d.e, info, d.keys, opt, o)
	if r == nil {
		return nil, broken
	}
	o.Phase(PhaseStoring)
	res := &BackupResult{Info: info, Parent: r.Parent()}
	var err error
	res.Result, err = r.Publish(ctx, receive.PublishOptions{
		AllowIncomplete: opt.AllowIncomplete, Broken: broken, Tags: opt.Tags, Workers: opt.Workers, Progress: opt.Progress,
	})
	if err != nil {
		if ctx.Err() != nil {
			err = canceled{ctx.Err()}
		}
		return nil, h.endInterrupted(ctx, r, info, errors.Join(broken, err), worthless(broken))
	}
	if broken != nil {
		return res, h.endInterrupted(ctx, r, info, broken, false)
	}
	return res, nil
}

// receive talks with the device until the device has sent everything. When
// receive returns, other programs can use the device. If the backup breaks off and
// what was received is to be stored, receive returns both a Receiver and an error.
func (h Host) receive(ctx context.Context, e device.Entry, info *device.Info, keys *unlocker, opt BackupOptions, o Observer) (*receive.Receiver, error) {
	c, err := h.dial(ctx, e, o)
	if err != nil {
		return nil, err
	}
	defer c.close(ctx)
	o.Phase(PhaseLocking)
	if err := c.sync.Lock(c.ctx); err != nil {
		return nil, c.explain(ctx, err)
	}
	o.Phase(PhaseInfo)
	plist, err := h.Mux.InfoPlist(c.ctx, e, c.sync.Files(), device.InfoOptions{Now: h.Now(), Random: h.Random, Missing: func(what string, err error) {
		o.Warning(fmt.Sprintf("Info.plist lacks %s: %v", what, err))
	}})
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	r, err := h.newReceiver(c.ctx, info, keys, opt)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	for _, p := range r.Problems() {
		o.Warning(p)
	}
	o.Remark(h.summary(ctx, info, r.Parent(), r.Full()))
	if old := r.Resumed(); old.Files > 0 {
		o.Remark(fmt.Sprintf("continuing the interrupted backup that began on %s: the device need not send %s (%s) again",
			old.Since.Local().Format("2006-01-02 15:04"), words.Plural(old.Files, "file"), h.bytes(old.Bytes)))
	}
	if err := r.SetInfo(plist); err != nil {
		return nil, h.endInterrupted(ctx, r, info, err, false)
	}
	announcePasscode(info, o)
	// To continue an interrupted full backup, do not ask for a full one: the device
	// would send everything again.
	full := opt.Full && r.Resumed().Files == 0
	if err := c.Backup(c.ctx, backup2.BackupRequest{UDID: e.UDID, Full: full, Complain: r.Complain}, r, o); err != nil {
		damaged := worthless(err) || r.Overfull()
		err = c.explain(ctx, err)
		if r.Overfull() {
			err = fmt.Errorf("%w (%w)", ErrTooManyNames, err)
		}
		if !opt.IgnoreSpace {
			err = h.explainSpace(ctx, info, r.Wanted(), err)
		}
		c.close(ctx)
		if opt.AllowIncomplete && r.HasFiles() && ctx.Err() == nil {
			return r, err
		}
		return nil, h.endInterrupted(ctx, r, info, err, damaged)
	}
	return r, nil
}

// worthless reports whether a backup that ended with this error is not worth
// continuing: the device calls it damaged, or it would fail again.
func worthless(err error) bool {
	return errors.Is(err, backup2.ErrDamaged) || errors.Is(err, ErrTooManyNames)
}

func (h Host) newReceiver(ctx context.Context, info *device.Info, keys *unlocker, opt BackupOptions) (*receive.Receiver, error) {
	o := receive.Options{
		UDID: info.UDID, Device: info.Name, Full: opt.Full,
		Encrypted: info.WillEncrypt != nil && *info.WillEncrypt,
		SpoolDir:  opt.SpoolDir, SpoolLimit: opt.SpoolLimit, CheckpointBytes: opt.CheckpointBytes, CheckpointTime: opt.CheckpointTime,
		IgnoreSpace: opt.IgnoreSpace,
		Host:        h.Name, Program: h.Program, Now: h.Now,
	}
	if keys != nil {
		o.Unlock = keys.unlock
	}
	return receive.New(ctx, h.Repo, o)
}

// ErrTooManyNames says that a device has created more names than any backup has. What
// it has sent is dropped, since a backup that continues would fail, too.
var ErrTooManyNames = catalog.ErrTooMany

// closeTime bounds the time for saving what was received.
const closeTime = 2 * time.Minute

// endInterrupted ends a backup and returns an error that says how much of it is
// kept.
func (h Host) endInterrupted(ctx context.Context, r *receive.Receiver, info *device.Info, err error, drop bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if drop {
		if errors.Is(err, ErrTooManyNames) {
			err = fmt.Errorf("%w; what it has sent was dropped", err)
		}
		return &Interrupted{Err: errors.Join(err, r.Discard(ctx))}
	}
	// If Close fails, it usually returns the error that is already known.
	if failed := r.Close(ctx); failed != nil && !errors.Is(err, failed) {
		err = errors.Join(err, failed)
	}
	old := r.Resumed()
	out := &Interrupted{Err: err}
	if old.Files > 0 {
		out.Afresh = "snap backup --full"
		if old.Full { // another full one would continue it, too
			out.Afresh = fmt.Sprintf("snap forget --unfinished %s", info.UDID)
		}
	}
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
