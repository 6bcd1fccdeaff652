package ingest

import (
	"context"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Forecast says what an import would do.
type Forecast struct {
	Parent    *repo.Snapshot `json:"-"`
	Unchanged bool           `json:"unchanged"` // it would make no snapshot
	Files     int64          `json:"files"`     // of the backup
	Bytes     int64          `json:"bytes"`

	New       int64 `json:"new_files"`       // that the parent has not
	Changed   int64 `json:"changed_files"`   // that may differ from the parent's
	Same      int64 `json:"unchanged_files"` // that would be taken from the parent
	Removed   int64 `json:"removed_files"`   // that only the parent has
	ReadFiles int64 `json:"read_files"`
	ReadBytes int64 `json:"read_bytes"`

	Findings []repo.Finding `json:"-"` // as far as they are known without reading files
}

// Foresee finds out what Import would do, with the same errors. It writes nothing, and reads
// no content of files, unless the caller asks for a rescan or only the content can tell
// whether a file has changed. How much an import would store cannot be known without
// reading what has changed.
func Foresee(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, opts Options) (*Forecast, error) {
	j := newJob(r, b, &folderSource{r: r, b: b, rescan: opts.Rescan}, opts)
	if err := j.begin(ctx); err != nil {
		return nil, err
	}
	f := &Forecast{Parent: j.parent}
	if j.askFirst() {
		return unlockAndForesee(ctx, r, b, opts)
	}
	same, err := j.sameAsParent(ctx)
	if err != nil {
		return nil, err
	}
	if !same && j.justLook {
		return unlockAndForesee(ctx, r, b, opts)
	}
	if same {
		f.Unchanged = opts.SkipIfUnchanged
		f.Files, f.Bytes, f.Same = j.res.Files, j.res.Bytes, j.res.Files
		f.Findings = j.log.Findings()
		return f, b.CheckStable(ctx)
	}
	if err := j.list(ctx); err != nil {
		return nil, err
	}
	known := int64(0)
	err = j.plan(ctx, func(batch *batch) error {
		for i := range batch.files {
			if batch.files[i].parent != nil && batch.files[i].parent.Kind != tree.Dir {
				known++
			}
			f.count(&batch.files[i])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.Files, f.Bytes = j.res.Files, j.res.Bytes
	f.Findings = j.log.Findings()
	f.ReadFiles, f.ReadBytes = j.res.ReadFiles, j.res.ReadBytes
	if j.parent != nil {
		f.Removed = max(0, j.parent.Files-known)
	}
	return f, b.CheckStable(ctx)
}

// unlockAndForesee is unlockAndImport for Foresee.
func unlockAndForesee(ctx context.Context, r *repo.Repo, b *mobilesync.Backup, opts Options) (*Forecast, error) {
	if err := opts.Unlock(ctx); err != nil {
		return nil, err
	}
	opts.Unlock = nil
	return Foresee(ctx, r, b, opts)
}

func (f *Forecast) count(x *file) {
	switch {
	case x.entry.Kind == tree.Dir:
	case x.parent == nil:
		f.New++
	case x.read:
		f.Changed++
	default:
		f.Same++
	}
}
