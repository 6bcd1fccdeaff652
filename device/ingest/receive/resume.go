package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

type file = catalog.File

const saved = catalog.Saved

// resume loads an interrupted backup, or starts a new one.
func (r *Receiver) resume(ctx context.Context) error {
	if r.opts.SpoolDir != "" {
		r.opts.SpoolDir = filepath.Clean(r.opts.SpoolDir)
	}
	list, damaged, err := r.repo.Unfinished(ctx)
	if err != nil {
		return err
	}
	for _, err := range damaged {
		r.cannotContinue(err)
	}
	var old *repo.Unfinished
	for _, u := range list {
		if u.Kind == repo.UnfinishedBackup && repo.SameDevice(u.UDID, r.opts.UDID) {
			old = u
		}
	}
	if old != nil {
		ok, err := r.load(ctx, old)
		if err != nil {
			return err
		}
		if !ok {
			if err := r.drop(ctx, old); err != nil {
				return err
			}
			old = nil
		}
	}
	if old == nil {
		if err := r.startNew(); err != nil {
			return err
		}
	}
	r.sweep(list)
	if r.spool != nil {
		return nil
	}
	if want, err := r.wantsSpool(ctx); err != nil || !want {
		return err
	}
	return r.openSpool()
}

func (r *Receiver) cannotContinue(err error) {
	r.problems = append(r.problems, fmt.Sprintf("an interrupted backup cannot be continued: %v", err))
}

// startNew starts a backup from the parent snapshot, without any files of an
// interrupted backup.
func (r *Receiver) startNew() (err error) {
	if r.spool != nil {
		_ = r.spool.Close()
		r.spool = nil
	}
	r.names, r.resumed, r.status, r.stats = catalog.New(r.shown), Resumed{}, status{}, repo.WriteStats{}
	r.checkpoint, r.complaints = checkpoint{}, complaints{}
	if r.checkpoint.record, err = r.repo.NewUnfinished(repo.UnfinishedBackup, r.opts.UDID); err != nil {
		return err
	}
	u := r.checkpoint.record
	u.Device, u.Host, u.Program = r.opts.Device, r.opts.Host, r.opts.Program
	u.Full = r.opts.Full
	if r.parent != nil {
		u.Parent, u.Full = &r.parent.ID, r.shown == nil
	}
	return nil
}

// drop removes an interrupted backup that cannot be continued.
func (r *Receiver) drop(ctx context.Context, u *repo.Unfinished) error {
	if err := r.repo.RemoveUnfinished(ctx, u); err != nil {
		return err
	}
	if r.spool != nil {
		sp := r.spool
		r.spool = nil
		return sp.Remove()
	}
	return nil
}

// load continues an interrupted backup. It returns false if that is impossible:
// the device must continue the same snapshot, and if it had begun to move
// files, all files must be present. A full backup continues only a full one. So --full
// can start afresh after an interrupted incremental backup.
func (r *Receiver) load(ctx context.Context, u *repo.Unfinished) (bool, error) {
	sameParent := (u.Parent == nil) == (r.parent == nil) && (u.Parent == nil || r.parent.Has(*u.Parent))
	begunFull := u.Full || r.parent == nil
	if !sameParent || !begunFull && r.shown == nil || r.opts.Full && !u.Full {
		return false, nil
	}
	if begunFull {
		r.shown, r.names = nil, catalog.New(nil)
	}
	r.checkpoint.record = u
	r.stats = u.Stats()
	lost, err := r.loadStored(ctx, u)
	if errors.Is(err, repo.ErrDamaged) || errors.Is(err, catalog.ErrTooMany) {
		r.cannotContinue(err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.stored = r.names.Stored()
	if u.Spooled > 0 || r.spoolExists() {
		count, err := r.loadSpool(ctx)
		if errors.Is(err, catalog.ErrTooMany) {
			r.cannotContinue(err)
			return false, nil
		}
		if err != nil {
			return false, err
		}
		lost = lost || count < u.Spooled
	}
	if r.status, err = r.readStatus(ctx); err != nil {
		return false, err
	}
	r.checkpoint.frozen = r.status.state == stateMoving
	if r.checkpoint.frozen && lost {
		return false, nil
	}
	r.loadComplaints(u)
	r.resumed.Files, r.resumed.Bytes, _ = r.names.Count()
	r.resumed.Since, r.resumed.Full = u.Started, u.Full
	return true, nil
}

// loadStored adds those files of a record whose content is in the repository.
// It reports whether the repository has lost content of other files.
func (r *Receiver) loadStored(ctx context.Context, u *repo.Unfinished) (lost bool, err error) {
	removed := map[string]bool{}
	for _, p := range u.Removed {
		removed[p] = true
	}
	err = r.repo.WalkUnfinished(ctx, u, func(e *tree.Entry) error {
		if removed[e.Path] || e.Kind != tree.File || e.Encryption != nil {
			return nil
		}
		present, err := blob.Present(ctx, r.repo, &e.Content, r.repo.Index().Has)
		if err != nil {
			return err
		}
		if !present {
			lost = true
			r.names.RemoveFile(e.Path)
			return nil
		}
		number, err := r.names.Add(&e.Content, saved)
		if err != nil {
			return err
		}
		return r.names.Put(e.Path, number, r.now)
	})
	return lost, err
}

// spoolExists reports whether the interrupted backup has left a spool here. The
// spool's index may list files that arrived after the last checkpoint.
func (r *Receiver) spoolExists() bool {
	if r.opts.SpoolDir == "" {
		return false
	}
	info, err := os.Lstat(filepath.Join(r.opts.SpoolDir, r.spoolName()))
	return err == nil && info.IsDir()
}

// loadSpool loads the spool of an interrupted backup and returns the number of
// files in it. If the spool is gone or on another computer, the device sends
// the spooled files again.
func (r *Receiver) loadSpool(ctx context.Context) (count int64, err error) {
	if r.opts.SpoolDir == "" {
		return 0, nil
	}
	if err := r.openSpool(); err != nil {
		return 0, err
	}
	kept, err := r.spool.Load(ctx)
	if err != nil {
		return 0, err
	}
	for path, l := range kept {
		// Other paths are not spooled, and could conflict with folders of blobs.
		if !tree.CleanPath(path) || !needsKey(path) {
			continue
		}
		number, err := r.names.AddSpooled(l.Offset, l.Size, saved)
		if err != nil {
			return 0, err
		}
		if err := r.names.Put(path, number, r.now); err != nil {
			return 0, err
		}
		count++
	}
	return count, nil
}

func (r *Receiver) readStatus(ctx context.Context) (status, error) {
	if _, ok := r.names.Number(mobilesync.StatusPlist); !ok {
		return status{}, nil
	}
	f, err := r.open(ctx, mobilesync.StatusPlist)
	if err != nil {
		return status{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStatus))
	return parseStatus(b), err
}
