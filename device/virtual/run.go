package virtual

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// RunOptions say how to receive a backup.
type RunOptions struct {
	UDID   string // of the device, as it names itself
	Device string // its name, for the record of a run that breaks off
	// Full makes the device send everything: it is shown an empty folder. What
	// it sends is still compared with the last snapshot, to store it as
	// differences.
	Full bool

	// Encrypted says that the device seals what it sends (its WillEncrypt). If
	// a password is at hand, too, files wait in the spool for their keys;
	// otherwise they are stored as they come.
	Encrypted bool
	// Unlock opens a sealed backup; nil tries the passwords that the repository
	// keeps for the device. An error that is keybag.ErrWrongPassword or
	// mobilesync.ErrNotUnlockable makes the backup be stored locked.
	Unlock func(ctx context.Context, b *mobilesync.Backup) error
	// SpoolDir is a folder for spools, one in it for each run; without it
	// nothing is spooled. SpoolLimit bounds a spool in bytes, DefaultSpoolLimit
	// if 0; what does not fit goes into the repository as it is, is turned into
	// its plain form at the end like the rest, and leaves chunks behind that
	// nothing needs.
	SpoolDir   string
	SpoolLimit int64

	// The record of what was received is written every CheckpointBytes (256 MiB
	// if 0) or CheckpointTime (a minute if 0), after a file; in the beginning
	// whenever as much has come as before, from 32 MiB on. A run that is killed
	// loses no more than that and one file. What waits in the spool outlives a
	// process that is killed anyway; the record counts for it only after a power
	// cut.
	CheckpointBytes int64
	CheckpointTime  time.Duration

	// Owner is this process, for others to know whether it is alive; nil asks the
	// system.
	Owner *process.Identity

	// SpaceFactor is how many bytes of a backup one free byte of the store is
	// said to take; see Space. 0 chooses.
	SpaceFactor int64

	Host    string // names for the record
	Program string
	Now     func() time.Time // time.Now if nil
}

const (
	// DefaultSpoolLimit is 64 GiB: most devices' encrypted backups fit.
	DefaultSpoolLimit = 64 << 30

	defaultCheckpointBytes = 256 << 20
	defaultCheckpointTime  = time.Minute
	// firstCheckpoint is how much comes, in bytes, before the first checkpoint.
	firstCheckpoint = 32 << 20
	// firstSpooled is the same where a spool has it: its run has to be known to the
	// repository so that the next one finds it.
	firstSpooled = 1 << 20
)

func (o RunOptions) withDefaults() RunOptions {
	if o.SpoolLimit <= 0 {
		o.SpoolLimit = DefaultSpoolLimit
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = defaultCheckpointBytes
	}
	if o.CheckpointTime <= 0 {
		o.CheckpointTime = defaultCheckpointTime
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Owner == nil {
		self := process.Current()
		o.Owner = &self
	}
	return o
}

// Resumed says what of an interrupted run the device need not send again.
type Resumed struct {
	Files, Bytes int64
	Since        time.Time // when that run began
}

// Run is the backup folder of a device while it backs up. It ends with Publish,
// Close or Discard. Uploads come one at a time.
type Run struct {
	r    *repo.Repo
	opts RunOptions
	// ctx is the run's own: an upload that is given up must not cut off the
	// lane, which has promised chunks of files before it.
	ctx    context.Context
	cancel context.CancelFunc
	now    time.Time // of all that is received

	parent   *repo.Snapshot // nil for none
	shown    *set           // of the parent, if the device continues it
	before   *set           // of the parent, to compare content with
	problems []string

	mu      sync.RWMutex // guards what follows, and names while it is changed
	names   *names
	resumed Resumed
	status  status // of the device, by its Status.plist

	writer *repo.Writer
	lane   *repo.ContentWriter
	stats  repo.WriteStats // of writers that have finished
	stored int             // chunk IDs of names that lie in those
	buf    []byte          // of the upload
	busy   bool            // an upload is under way
	broken error           // why nothing more can be stored
	closed bool

	spool    *spool // nil if nothing waits
	overflow int64  // bytes that the spool could not take

	checkpoint checkpoint
	files      int64 // received in this run
	bytes      int64
}

var _ backup2.Folder = (*Run)(nil)

// NewRun begins a backup of a device. The caller holds a lock of the repository
// for writing until the run has ended, and has loaded the index after that: else
// a prune could remove what has been received. The device continues from the last complete snapshot that the
// repository has of it, wherever that came from, and from what an interrupted
// run has left.
//
// If the repository has lost content of that snapshot, the device is shown an
// empty folder, so that it sends everything and the loss is made good.
func NewRun(ctx context.Context, r *repo.Repo, opts RunOptions) (*Run, error) {
	opts = opts.withDefaults()
	if err := folder.CheckPath(opts.UDID); err != nil || strings.Contains(opts.UDID, "/") {
		return nil, fmt.Errorf("begin a backup: %q cannot be the name of a device", opts.UDID)
	}
	n := &Run{r: r, opts: opts, now: opts.Now().UTC().Truncate(time.Second)}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.begin(ctx); err != nil {
		n.letGo()
		return nil, fmt.Errorf("begin a backup of %s: %w", opts.UDID, err)
	}
	return n, nil
}

func (n *Run) begin(ctx context.Context) error {
	if err := n.findParent(ctx); err != nil {
		return err
	}
	n.names = newNames(n.shown)
	n.openWriter()
	if err := n.resume(ctx); err != nil {
		return err
	}
	if err := n.applyRekey(ctx); err != nil {
		return err
	}
	n.checkpoint.last = n.opts.Now()
	return nil
}

// findParent chooses the last complete snapshot of the device. One whose names
// cannot be read is passed over for an older one.
func (n *Run) findParent(ctx context.Context) error {
	parents, err := candidates(ctx, n.r, n.opts.UDID)
	if err != nil {
		return err
	}
	for _, s := range parents {
		x, err := newSet(ctx, n.r, s)
		if errors.Is(err, repo.ErrDamaged) {
			n.problems = append(n.problems, fmt.Sprintf("snapshot %s was passed over: %v", s.ID.Short(), err))
			continue
		}
		if err != nil {
			return err
		}
		if x.flat || !continuable(x) {
			continue
		}
		n.parent, n.before = s, x
		switch {
		case x.lost > 0:
			n.problems = append(n.problems, fmt.Sprintf("the repository has lost content of %d files of snapshot %s, so the device was asked for everything", x.lost, s.ID.Short()))
		case !n.opts.Full:
			n.shown = x
		}
		return nil
	}
	return nil
}

// continuable reports whether a snapshot has what a device reads before it
// continues a backup. With Status.plist, but without a manifest, it would fail.
func continuable(x *set) bool {
	for _, name := range []string{mobilesync.StatusPlist, mobilesync.ManifestPlist, mobilesync.ManifestDB} {
		if e := x.others[name]; e == nil || e.Kind != tree.File || e.Content.Size == 0 {
			return false
		}
	}
	return true
}

// candidates are the complete snapshots of a device, the newest first.
func candidates(ctx context.Context, r *repo.Repo, udid string) ([]*repo.Snapshot, error) {
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(s *repo.Snapshot) bool {
		return !s.Complete || !repo.SameDevice(s.Device.UDID, udid)
	})
	slices.Reverse(list)
	return list, nil
}

// Parent returns the snapshot that the device continues, nil for none.
func (n *Run) Parent() *repo.Snapshot { return n.parent }

// Resumed returns what an interrupted run has left that the device is shown.
func (n *Run) Resumed() Resumed { return n.resumed }

// Problems returns what was noticed at the beginning.
func (n *Run) Problems() []string { return slices.Clone(n.problems) }

func (n *Run) openWriter() {
	n.writer = n.r.NewWriter(n.ctx)
	n.lane = n.writer.NewContentWriter()
}

// wantsSpool reports whether a spool is of use: without a password the content
// could not be opened at the end either.
func (n *Run) wantsSpool(ctx context.Context) (bool, error) {
	if !n.opts.Encrypted || n.opts.SpoolDir == "" {
		return false, nil
	}
	if n.opts.Unlock != nil {
		return true, nil
	}
	kept, err := n.r.DevicePasswords(ctx, n.opts.UDID)
	for i := range kept {
		clear(kept[i].Password)
	}
	return len(kept) > 0, err
}

func (n *Run) spoolName() string { return spoolName(n.r.Config().ID, n.checkpoint.record.Run) }

// letGo ends what the run has open, without a record.
func (n *Run) letGo() {
	n.cancel()
	if n.writer != nil {
		_ = n.writer.Close()
		n.writer, n.lane = nil, nil
	}
	if n.spool != nil {
		_ = n.spool.close()
		n.spool = nil
	}
	n.closed = true
}

// Close ends a run that was not published: after a failure, or because somebody
// wanted it to end. What was received complete is kept for the next run; where
// that fails, the last checkpoint counts. After Publish it does nothing.
func (n *Run) Close(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	var err error
	if n.broken == nil && !n.busy {
		err = n.save(ctx)
	}
	if n.spool != nil && n.checkpoint.record.ID == (repo.FileID{}) {
		err = errors.Join(err, n.spool.remove()) // of no use without a record
		n.spool = nil
	}
	n.letGo()
	if err != nil {
		return fmt.Errorf("keep what was received: %w", err)
	}
	return nil
}

// Discard ends a run and drops what was received, also by earlier runs that it
// has continued: the next one begins with the last snapshot. It is for runs
// that the device itself has found to be damaged.
func (n *Run) Discard(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	sp := n.spool
	n.spool = nil
	n.letGo()
	err := n.r.RemoveUnfinished(ctx, n.checkpoint.record)
	if sp != nil {
		err = errors.Join(err, sp.remove())
	}
	return err
}

// below returns a path of the device below its folder.
func (n *Run) below(path string) (string, error) { return below(n.opts.UDID, path) }

func below(udid, path string) (string, error) {
	if path == udid {
		return "", nil
	}
	rest, ok := strings.CutPrefix(path, udid+"/")
	if !ok {
		return "", fmt.Errorf("%s is not below %s: %w", path, udid, errForeign)
	}
	return rest, nil
}

var errForeign = fmt.Errorf("%w here", errors.ErrUnsupported)

// SetInfo sets Info.plist, which the computer writes and not the device.
func (n *Run) SetInfo(info []byte) error {
	up, err := n.Create(n.ctx, n.opts.UDID+"/"+mobilesync.InfoPlist)
	if err != nil {
		return err
	}
	if _, err := up.Write(info); err != nil {
		up.Abort()
		return err
	}
	return up.Commit()
}

// openSpool opens or makes the spool of this run.
func (n *Run) openSpool() (err error) {
	n.spool, err = openSpool(n.opts.SpoolDir, n.spoolName(), n.opts.SpoolLimit, *n.opts.Owner)
	return err
}

// sweep removes spools that no run will continue.
func (n *Run) sweep(records []*repo.Unfinished) {
	if n.opts.SpoolDir == "" {
		return
	}
	known := map[string]bool{n.checkpoint.record.Run: true}
	for _, u := range records {
		known[u.Run] = true
	}
	sweepSpools(n.opts.SpoolDir, n.r.Config().ID, known, *n.opts.Owner, n.opts.Now())
}
