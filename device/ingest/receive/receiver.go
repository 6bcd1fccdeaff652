package receive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/ingest/spool"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Resumed describes the part of an interrupted backup that need not be sent
// again.
type Resumed struct {
	Files, Bytes int64
	Since        time.Time // when that backup began
	Full         bool      // that backup was a full one, so a full one continues it, too
}

// Receiver is the backup folder of a device while it backs up. It ends with
// Publish, Close or Discard. The device sends one file at a time.
type Receiver struct {
	repo *repo.Repo
	opts Options
	// ctx lives as long as the Receiver: canceling an upload must not cancel the
	// content writer, which still has chunks of earlier files.
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // goroutines that use the writer
	now    time.Time      // the time of everything that is received

	parent   *repo.Snapshot // nil if there is none
	shown    *catalog.Set   // files of the parent, nil if the device does not continue it
	before   *catalog.Set   // files of the parent, to compare content with
	problems []string

	mu      sync.RWMutex // guards the fields below
	names   *catalog.Catalog
	resumed Resumed
	status  status // the last Status.plist of the device

	writer  *repo.Writer
	content *repo.ContentWriter
	stats   repo.WriteStats // of finished writers
	stored  int             // chunk IDs that finished writers have stored, counted as in Catalog.Stored
	buf     []byte          // of the current upload
	busy    bool            // a file is being received
	broken  error           // why nothing more can be stored
	closed  bool

	spool    *spool.Spool // nil if files are not spooled
	overflow int64        // bytes that did not fit in the spool

	complaints complaints
	checkpoint checkpoint
	files      int64 // received since New
	bytes      int64
	wanted     int64 // see Wanted
}

var _ backup2.Folder = (*Receiver)(nil)

// New begins a backup of a device. The device continues from its last complete
// snapshot, whether imported or received, and from an interrupted backup if
// there is one.
//
// The caller must lock the repository for writing, then load the index, and
// keep the lock until the Receiver has ended. Otherwise a prune could remove
// what was received.
//
// If the repository has lost content of the last snapshot, the device is shown an
// empty folder, so that it sends everything.
func New(ctx context.Context, r *repo.Repo, opts Options) (*Receiver, error) {
	opts = opts.withDefaults()
	if !blob.IsFolderName(opts.UDID) {
		return nil, fmt.Errorf("begin a backup: %q cannot be a UDID", opts.UDID)
	}
	n := &Receiver{repo: r, opts: opts, now: opts.Now().UTC().Truncate(time.Second)}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.begin(ctx); err != nil {
		n.release()
		return nil, fmt.Errorf("begin a backup of %s: %w", opts.UDID, err)
	}
	return n, nil
}

func (r *Receiver) begin(ctx context.Context) error {
	if err := r.findParent(ctx); err != nil {
		return err
	}
	r.names = catalog.New(r.shown)
	r.openWriter()
	if err := r.resume(ctx); err != nil {
		return err
	}
	if err := r.applyPasswordChange(ctx); err != nil {
		return err
	}
	r.checkpoint.last = r.opts.Now()
	return nil
}

// findParent chooses the last complete snapshot of the device. It skips a
// snapshot whose files cannot be listed.
func (r *Receiver) findParent(ctx context.Context) error {
	parents, err := passwordchange.Parents(ctx, r.repo, r.opts.UDID)
	if err != nil {
		return err
	}
	for _, s := range parents {
		x, err := catalog.NewSet(ctx, r.repo, s)
		if errors.Is(err, repo.ErrDamaged) {
			r.problems = append(r.problems, fmt.Sprintf("snapshot %s is not used: %v", s.ID.Short(), err))
			continue
		}
		if err != nil {
			return err
		}
		ok, err := continuable(ctx, x)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		r.parent, r.before = s, x
		switch {
		case x.Lost() > 0:
			r.problems = append(r.problems, fmt.Sprintf("the repository has lost content of %s of snapshot %s, so the device sends everything", words.Plural(x.Lost(), "file"), s.ID.Short()))
		case !r.opts.Full:
			r.shown = x
		}
		return nil
	}
	return nil
}

// continuable reports whether a snapshot has the files that a device reads
// before it continues a backup. A device that finds a Status.plist but no
// manifest would fail.
func continuable(ctx context.Context, x *catalog.Set) (bool, error) {
	if x.Flat() {
		return false, nil
	}
	for _, name := range []string{mobilesync.StatusPlist, mobilesync.ManifestPlist, mobilesync.ManifestDB} {
		if e, err := x.Find(ctx, name); err != nil || e == nil || e.Content.Size == 0 {
			return false, err
		}
	}
	return true, nil
}

// applyPasswordChange shows the device the keys that it wrote when its backup
// password was changed.
func (r *Receiver) applyPasswordChange(ctx context.Context) error {
	if r.shown == nil {
		return nil
	}
	err := passwordchange.Apply(ctx, r.repo, r.opts.UDID, r.parent, func(e *tree.Entry) error {
		number, err := r.names.Add(&e.Content, 0)
		if err != nil {
			return err
		}
		return r.names.Put(e.Path, number, r.now)
	})
	r.stored = r.names.Stored()
	return err
}

// Parent returns the snapshot that the device continues, nil if there is none.
func (r *Receiver) Parent() *repo.Snapshot { return r.parent }

// Full reports whether the device sends everything, since it is shown nothing of a
// snapshot: a full backup was asked for, the interrupted one that it continues was full,
// or there is no snapshot to continue.
func (r *Receiver) Full() bool { return r.shown == nil }

// Resumed describes the part of an interrupted backup that the device is shown.
func (r *Receiver) Resumed() Resumed { return r.resumed }

// HasFiles reports whether the device has sent any blob, in this backup or in the
// interrupted one that it continues. Property lists and the manifest do not count.
func (r *Receiver) HasFiles() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	files, _, _ := r.names.Count()
	return files > 0
}

// Overfull reports whether the device has created more names than any backup has. What
// was received is then not worth keeping: a backup that continues it would fail, too.
func (r *Receiver) Overfull() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names.Overfull()
}

// Problems returns the problems that New found and that did not make New fail.
func (r *Receiver) Problems() []string { return slices.Clone(r.problems) }

func (r *Receiver) openWriter() {
	r.writer = r.repo.NewWriter(r.ctx)
	r.content = r.writer.NewContentWriter()
}

// wantsSpool reports whether a spool is useful. Without a password, content
// could not be decrypted at the end either.
func (r *Receiver) wantsSpool(ctx context.Context) (bool, error) {
	if !r.opts.Encrypted || r.opts.SpoolDir == "" {
		return false, nil
	}
	if r.opts.Unlock != nil {
		return true, nil
	}
	kept, err := r.repo.DevicePasswords(ctx, r.opts.UDID)
	for i := range kept {
		clear(kept[i].Password)
	}
	return len(kept) > 0, err
}

func (r *Receiver) spoolName() string {
	return spool.Name(r.repo.Config().ID, r.checkpoint.record.Run)
}

// openSpool opens the spool of this backup, or creates it.
func (r *Receiver) openSpool() (err error) {
	r.spool, err = spool.Open(r.opts.SpoolDir, r.spoolName(), r.opts.SpoolLimit, *r.opts.Owner)
	return err
}

// sweep removes spools that no backup will continue.
func (r *Receiver) sweep(records []*repo.Unfinished) {
	if r.opts.SpoolDir == "" {
		return
	}
	known := map[string]bool{r.checkpoint.record.Run: true}
	for _, u := range records {
		known[u.Run] = true
	}
	spool.Sweep(r.opts.SpoolDir, r.repo.Config().ID, known, *r.opts.Owner)
}

// release closes everything without writing a record.
func (r *Receiver) release() {
	r.cancel()
	r.tasks.Wait()
	if r.writer != nil {
		_ = r.writer.Close()
		r.writer, r.content = nil, nil
	}
	if r.spool != nil {
		_ = r.spool.Close()
		r.spool = nil
	}
	r.closed = true
}

// Close ends a backup that was not published. It saves the files that were
// completely received, for the next backup. If saving fails, the files of the
// last checkpoint remain. After Publish, Close does nothing.
func (r *Receiver) Close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	var err error
	if r.broken == nil && !r.busy {
		err = r.save(ctx)
	}
	if r.spool != nil && r.checkpoint.record.ID == (repo.FileID{}) {
		err = errors.Join(err, r.spool.Remove()) // useless without a record
		r.spool = nil
	}
	r.release()
	if err != nil {
		return fmt.Errorf("keep what was received: %w", err)
	}
	return nil
}

// Discard ends a backup and drops all received files, including those of
// interrupted backups that it continues. The next backup begins with the last
// snapshot. Discard is for backups that the device itself has called damaged.
func (r *Receiver) Discard(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	sp := r.spool
	r.spool = nil
	r.release()
	err := r.repo.RemoveUnfinished(ctx, r.checkpoint.record)
	if sp != nil {
		err = errors.Join(err, sp.Remove())
	}
	return err
}

// SetInfo stores Info.plist, which the computer writes, not the device.
func (r *Receiver) SetInfo(info []byte) error {
	up, err := r.Create(r.ctx, r.opts.UDID+"/"+mobilesync.InfoPlist)
	if err != nil {
		return err
	}
	if _, err := up.Write(info); err != nil {
		up.Abort()
		return err
	}
	return up.Commit()
}
