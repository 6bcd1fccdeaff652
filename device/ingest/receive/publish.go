package receive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
)

// PublishOptions say how to publish a backup.
type PublishOptions struct {
	// AllowIncomplete also stores a backup that would be refused, and marks the
	// snapshot as incomplete.
	AllowIncomplete bool
	// Broken says why the backup ended before the device has called it complete. What
	// was received is stored as an incomplete snapshot. It is also kept for the next
	// backup to continue, unless the device has called it damaged.
	Broken error

	Tags     []string
	Workers  int // goroutines that decrypt spooled files; the number of cores if 0
	Progress *blob.Progress
}

// Result is the outcome of a backup.
type Result struct {
	// Import covers all files of the backup, as for an imported folder. Its
	// ReadFiles counts the files that were read again at the end, to decrypt them.
	Import   *ingest.Result
	Snapshot *repo.Snapshot
	Resumed  Resumed
	Files    int64 // received since New
	Bytes    int64
	// Locked says why an encrypted backup was stored encrypted; nil otherwise.
	Locked error
	// Overflow is the number of bytes that did not fit in the spool; see Options.
	Overflow int64
	Problems []string
}

// Publish makes a snapshot of the backup. Call it after the device has said
// that the backup is complete. Publish verifies that Status.plist says so. If files of
// the manifest are missing, the snapshot's record says so. An incomplete or damaged
// snapshot is no parent of the next backup. If the backup cannot be used at all, the
// error is ingest.ErrIncomplete, and the received files are dropped. After any other
// error they are kept.
func (r *Receiver) Publish(ctx context.Context, opts PublishOptions) (*Result, error) {
	r.mu.Lock()
	err := r.finish(ctx, opts.AllowIncomplete || opts.Broken != nil)
	r.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("publish the backup of %s: %w", r.opts.UDID, err)
	}
	res := &Result{Resumed: r.resumed, Files: r.files, Bytes: r.bytes, Overflow: r.overflow, Problems: r.problems}
	if err := r.ingest(ctx, opts, res); err != nil {
		err = fmt.Errorf("publish the backup of %s: %w", r.opts.UDID, err)
		if errors.Is(err, ingest.ErrIncomplete) {
			err = errors.Join(err, r.Discard(ctx))
		}
		return nil, err
	}
	if opts.Broken != nil && !errors.Is(opts.Broken, backup2.ErrDamaged) && !r.Overfull() {
		return res, r.Close(ctx)
	}
	// The snapshot is durable. If temporary data cannot be removed, the next backup
	// recognizes it as outdated.
	if err := r.cleanUp(ctx); err != nil {
		res.Problems = append(res.Problems, fmt.Sprintf("the snapshot is complete, but temporary data of the backup could not be removed: %v", err))
	}
	return res, nil
}

// finish makes everything that was received durable. It returns an error if the
// device has not finished, unless incomplete is set.
func (r *Receiver) finish(ctx context.Context, incomplete bool) error {
	switch {
	case r.closed:
		return fmt.Errorf("the backup has ended: %w", fs.ErrClosed)
	case r.busy:
		return errors.New("a file is still being received")
	case r.broken != nil:
		return r.broken
	}
	if !incomplete {
		if err := r.finished(); err != nil {
			return err
		}
	}
	if err := r.save(ctx); err != nil {
		return err
	}
	if r.spool != nil {
		if err := r.spool.Flush(); err != nil {
			return err
		}
	}
	return r.rotate(ctx)
}

// finished returns an error if the device has not finished.
func (r *Receiver) finished() error {
	if r.status.state != stateFinished {
		return fmt.Errorf("the device has not finished: its Status.plist says %q", r.status.state)
	}
	for _, name := range []string{mobilesync.StatusPlist, mobilesync.ManifestPlist, mobilesync.ManifestDB} {
		if _, ok := r.names.Number(name); !ok {
			return fmt.Errorf("the device has not sent %s", name)
		}
	}
	return nil
}

// ingest makes the snapshot.
func (r *Receiver) ingest(ctx context.Context, opts PublishOptions, res *Result) error {
	src := &received{r: r, ctx: ctx, opening: true}
	b, err := mobilesync.OpenStore(ctx, src, r.opts.UDID)
	if err != nil {
		return err
	}
	defer b.Close()
	if src.opening = false; src.err != nil {
		return fmt.Errorf("read what was received: %w", src.err)
	}
	src.runID = b.StatusUUID()
	destroy, err := r.unlock(ctx, b, res)
	if err != nil {
		return err
	}
	defer destroy()
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	res.Import, err = ingest.Publish(ctx, r.repo, b, src, ingest.Options{
		Complaints: r.complaints.list(), AllowIncomplete: opts.AllowIncomplete, Broken: opts.Broken,
		Tags: opts.Tags, Host: r.opts.Host, Program: r.opts.Program, Workers: opts.Workers, Progress: opts.Progress,
	})
	if err != nil {
		return err
	}
	res.Snapshot = res.Import.Snapshot
	return nil
}

// unlock unlocks an encrypted backup, if a password is known. The caller calls
// destroy when the keys are no longer needed.
func (r *Receiver) unlock(ctx context.Context, b *mobilesync.Backup, res *Result) (destroy func(), err error) {
	destroy = func() {}
	if !b.Encrypted() {
		return destroy, nil
	}
	if r.opts.Unlock != nil {
		err = r.opts.Unlock(ctx, b)
	} else {
		destroy, err = r.unlockKept(ctx, b)
	}
	if errors.Is(err, keybag.ErrWrongPassword) || errors.Is(err, mobilesync.ErrNotUnlockable) || errors.Is(err, errNoPassword) {
		res.Locked, err = err, nil
	}
	return destroy, err
}

var errNoPassword = errors.New("the backup password is not known")

// unlockKept tries the passwords that the repository keeps.
func (r *Receiver) unlockKept(ctx context.Context, b *mobilesync.Backup) (destroy func(), err error) {
	destroy = func() {}
	kept, err := r.repo.DevicePasswords(ctx, r.opts.UDID)
	if err != nil {
		return destroy, err
	}
	defer func() {
		for i := range kept {
			clear(kept[i].Password)
		}
	}()
	err = errNoPassword
	for i := range kept {
		var keys *keybag.Keys
		if keys, err = b.Unlock(ctx, kept[i].Password, nil); err == nil {
			return keys.Destroy, nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			break
		}
	}
	return destroy, err
}

// cleanUp removes the records and the spool, which the snapshot has made
// unnecessary.
func (r *Receiver) cleanUp(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	sp := r.spool
	r.spool = nil
	r.release()
	var errs []error
	if sp != nil {
		errs = append(errs, sp.Remove())
	}
	errs = append(errs, r.repo.RemoveUnfinished(ctx, r.checkpoint.record), passwordchange.RemoveAll(ctx, r.repo, r.opts.UDID))
	return errors.Join(errs...)
}
