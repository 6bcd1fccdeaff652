package transfer

import (
	"context"
	"errors"
	"os"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// errOther ends the comparison with the parent.
var errOther = errors.New("the folder is not what the parent has")

// same reports whether the folder is, file for file, what the parent snapshot
// was made of. Then its tree is the parent's, and its manifest, which takes
// most of the time of an import that finds nothing new, need not be read.
//
// It goes by what plan goes by for each file. What plan learns from the
// manifest cannot have changed where the manifest has not. It gives up on all
// that is not plain: there the long way tells more.
func (im *importer) same(ctx context.Context) (bool, error) {
	p := im.parent
	if p == nil || im.opts.Received != nil || im.opts.Rescan || !im.complete || len(im.problems) > 0 ||
		!p.Complete || len(p.Problems) > 0 || p.Encrypted != im.b.Encrypted() || p.Unlocked != im.b.Unlocked() {
		return false, nil
	}
	// Without this, the folder would be listed before its manifest is read and
	// not at the same time, day after day.
	if ok, err := im.sameManifest(ctx); err != nil || !ok {
		return false, err
	}
	im.opts.Progress.enter("looking for changes")
	if err := im.walk(ctx); err != nil {
		return false, err
	}
	at := make(map[string]int32, len(im.items))
	for i := range im.items {
		at[im.items[i].file.Path] = int32(i)
	}
	res := *im.res
	err := im.r.Walk(ctx, p, "", func(old *tree.Entry) error {
		i, ok := at[old.Path]
		if !ok {
			return errOther
		}
		delete(at, old.Path)
		return im.sameFile(ctx, old, &im.items[i], &res)
	})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil, len(at) > 0: // also where the parent is damaged
		return false, nil
	}
	*im.res = res
	im.opts.Progress.TotalFiles.Store(res.Files)
	im.opts.Progress.Files.Store(res.Files)
	im.opts.Progress.TotalBytes.Store(res.Bytes)
	im.opts.Progress.Bytes.Store(res.Bytes)
	return true, nil
}

func (im *importer) sameManifest(ctx context.Context) (bool, error) {
	old, err := im.r.Find(ctx, im.parent, tree.Key{Path: mobilesync.ManifestDB})
	if errors.Is(err, repo.ErrDamaged) || err == nil && old == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info, err := os.Lstat(im.onDisk(mobilesync.ManifestDB))
	if err != nil {
		return false, nil
	}
	return info.Size() == blobSize(old) && info.ModTime().UnixNano() == old.ModTime, nil
}

// sameFile returns errOther unless a file is as the parent has it.
func (im *importer) sameFile(ctx context.Context, old *tree.Entry, it *item, res *ImportResult) error {
	if it.file.Skipped != "" {
		return errOther
	}
	e, stat := im.entry(it)
	// What only the manifest tells.
	e.Domain, e.Name, e.Record = old.Domain, old.Name, old.Record
	if e.Mode != old.Mode || e.Kind != old.Kind || e.ModTime != old.ModTime {
		return errOther
	}
	if e.Kind == tree.Dir {
		return nil
	}
	if !unchanged(old, &e, stat) || !im.stored(ctx, &old.Content) {
		return errOther
	}
	res.Files++
	res.Bytes += stat.size
	switch {
	case old.Encryption != nil:
		res.Unsealed++
	case im.b.Unlocked() && stat.size > 0 && (old.Record != nil || old.Path == mobilesync.ManifestDB):
		return errOther // the reason why it is stored sealed is not in the tree
	}
	return nil
}
