package ingest

import (
	"context"
	"errors"
	"os"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// errDiffers ends the comparison with the parent early.
var errDiffers = errors.New("the folder differs from the parent")

// sameAsParent reports whether the folder has exactly the parent's files. If
// so, the snapshot uses the parent's tree, and the manifest is not read.
// Reading it would take most of the time of an import without changes.
//
// It compares the same properties as folderSource.Stored. If the manifest file
// has not changed, neither have its records. It returns false if anything is
// unusual; the complete import then reports what is unusual.
//
// If the parent is stored decrypted and this backup is locked, the complete import could
// only store all of it again. So files that may have changed are then compared with the
// parent's, encrypted again.
func (j *job) sameAsParent(ctx context.Context) (bool, error) {
	p := j.parent
	if p == nil || len(j.log.Findings()) > 0 ||
		!p.Complete || p.Findings == nil || len(p.Problems) > 0 || p.Encrypted != j.b.Encrypted() {
		return false, nil
	}
	opened := p.Unlocked && !j.b.Unlocked() && !j.opts.Locked
	if !opened && (j.opts.Rescan || p.Unlocked != j.b.Unlocked()) {
		return false, nil
	}
	// If the manifest has changed, it must be read; list walks the folder
	// meanwhile.
	if ok, err := j.sameManifest(ctx); err != nil || !ok {
		return false, err
	}
	j.opts.Progress.Enter("looking for changes")
	if err := j.walk(ctx); err != nil || len(j.unlisted.errs) > 0 {
		return false, err
	}
	here := j.items.finder()
	res := *j.res
	res.NoPassword = opened
	doubtful := j.opts.Rescan
	err := j.r.Walk(ctx, p, "", func(old *tree.Entry) error {
		it, ok := here.take(old.Path)
		if !ok {
			return errDiffers
		}
		proven, err := j.sameFile(ctx, old, it, &res)
		doubtful = doubtful || !proven
		return err
	})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil, here.left > 0: // they differ, or the parent is damaged
		return false, nil
	}
	j.opts.Progress.TotalFiles.Store(res.Files)
	j.opts.Progress.TotalBytes.Store(res.Bytes)
	if doubtful {
		if j.justLook {
			return false, nil
		}
		if same, err := j.sameBytes(ctx, &res); !same {
			j.opts.Progress.Bytes.Store(0)
			return false, err
		}
	}
	*j.res = res
	j.inherit()
	j.opts.Progress.Files.Store(res.Files)
	j.opts.Progress.Bytes.Store(res.Bytes)
	return true, nil
}

func (j *job) sameManifest(ctx context.Context) (bool, error) {
	old, err := j.r.Find(ctx, j.parent, tree.Key{Path: mobilesync.ManifestDB})
	if errors.Is(err, repo.ErrDamaged) || err == nil && old == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info, err := os.Lstat(j.onDisk(mobilesync.ManifestDB))
	if err != nil {
		return false, nil
	}
	return info.Size() == blob.Size(old) && tree.At(info.ModTime()) == old.ModTime, nil
}

// sameFile counts a file in res if it equals the parent's. Otherwise it returns
// errDiffers. If only the bytes can tell, proven is false.
func (j *job) sameFile(ctx context.Context, old *tree.Entry, it *item, res *Result) (proven bool, err error) {
	if it.odd {
		return false, errDiffers
	}
	f := j.file(it)
	e := &f.entry
	// These fields come from the manifest, which has not changed.
	e.Domain, e.Name, e.Record = old.Domain, old.Name, old.Record
	if e.Mode != old.Mode || e.Kind != old.Kind || e.ModTime != old.ModTime {
		return false, errDiffers
	}
	if e.Kind == tree.Dir {
		return true, nil
	}
	proven = unchanged(old, e, f.size)
	if !proven && (!res.NoPassword || old.Key() != e.Key() || blob.Size(old) != f.size) {
		return false, errDiffers
	}
	if ok, err := present(ctx, j.r, old); err != nil || !ok {
		return false, errDiffers
	}
	res.Files++
	res.Bytes += f.size
	switch {
	case old.Encryption != nil:
		res.Decrypted++
	case j.b.Unlocked() && f.size > 0 && (old.Record != nil || old.Path == mobilesync.ManifestDB):
		return false, errDiffers // the tree does not say why the file is stored encrypted
	}
	return proven, nil
}

// sameBytes reports whether all files have the bytes of the parent's. It counts the files
// that it reads in res.
func (j *job) sameBytes(ctx context.Context, res *Result) (bool, error) {
	j.opts.Progress.Enter("comparing with snapshot " + j.parent.ID.Short())
	walk := func(ctx context.Context, fn func(*tree.Entry) error) error { return j.r.Walk(ctx, j.parent, "", fn) }
	err := blob.EachFile(ctx, j.opts.Workers, walk, func(ctx context.Context, old *tree.Entry) error {
		open, err := j.b.OpenFile(old.Path)
		if err != nil {
			return err
		}
		defer open.Close()
		size := blob.Size(old)
		src := sourceReader{f: open, size: size, left: size, p: j.opts.Progress}
		same, err := blob.Same(ctx, j.r, &src, old)
		if err != nil {
			return err
		}
		info, err := open.Stat()
		if err != nil {
			return err
		}
		if !same || info.Size() != size || tree.At(info.ModTime()) != old.ModTime {
			return errDiffers
		}
		return nil
	})
	if err != nil {
		return false, ctx.Err()
	}
	res.ReadFiles, res.ReadBytes = res.Files, res.Bytes
	return true, nil
}
