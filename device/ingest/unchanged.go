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
func (j *job) sameAsParent(ctx context.Context) (bool, error) {
	p := j.parent
	if p == nil || j.opts.Rescan || len(j.log.Findings()) > 0 ||
		!p.Complete || p.Findings == nil || len(p.Problems) > 0 || p.Encrypted != j.b.Encrypted() || p.Unlocked != j.b.Unlocked() {
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
	err := j.r.Walk(ctx, p, "", func(old *tree.Entry) error {
		it, ok := here.take(old.Path)
		if !ok {
			return errDiffers
		}
		return j.sameFile(ctx, old, it, &res)
	})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil, here.left > 0: // they differ, or the parent is damaged
		return false, nil
	}
	*j.res = res
	j.inherit()
	j.opts.Progress.TotalFiles.Store(res.Files)
	j.opts.Progress.Files.Store(res.Files)
	j.opts.Progress.TotalBytes.Store(res.Bytes)
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
// errDiffers.
func (j *job) sameFile(ctx context.Context, old *tree.Entry, it *item, res *Result) error {
	if it.odd {
		return errDiffers
	}
	f := j.file(it)
	e := &f.entry
	// These fields come from the manifest, which has not changed.
	e.Domain, e.Name, e.Record = old.Domain, old.Name, old.Record
	if e.Mode != old.Mode || e.Kind != old.Kind || e.ModTime != old.ModTime {
		return errDiffers
	}
	if e.Kind == tree.Dir {
		return nil
	}
	if !unchanged(old, e, f.size) {
		return errDiffers
	}
	if ok, err := present(ctx, j.r, old); err != nil || !ok {
		return errDiffers
	}
	res.Files++
	res.Bytes += f.size
	switch {
	case old.Encryption != nil:
		res.Decrypted++
	case j.b.Unlocked() && f.size > 0 && (old.Record != nil || old.Path == mobilesync.ManifestDB):
		return errDiffers // the tree does not say why the file is stored encrypted
	}
	return nil
}
