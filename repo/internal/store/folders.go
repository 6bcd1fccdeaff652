package store

import (
	"context"
	"errors"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// needed are folders that a repository with content has, what shows that it has content, and
// what to do if the folder is missing.
var needed = map[string]struct {
	by []string
	do string
}{
	layout.SnapshotsDir: {[]string{layout.IndexDir}, "run `snap repair snapshots`, which stores again the records of which the ledger has copies, or `snap repair --from COPY --missing-snapshots`; if there is no copy and no backup was ever completed, make an empty folder of that name"},
	layout.PacksDir:     {[]string{layout.SnapshotsDir, layout.IndexDir}, "run `snap repair --from COPY`; if there is no copy, make an empty folder of that name, and the next backups store again what still exists"},
}

// MustHaveFolder returns a *DamageError if a folder is missing although the repository has
// content: no command removes these folders. To go on would hide the loss, and the next
// prune would make it final.
func (r *Store) MustHaveFolder(ctx context.Context, dir string) error {
	f, ok := r.Backend.(backend.Folders)
	if !ok {
		return nil
	}
	exists, err := f.HasFolder(ctx, dir)
	if err != nil || exists {
		return err
	}
	for _, other := range needed[dir].by {
		used, err := HasFiles(ctx, r.Backend, other)
		if err != nil {
			return err
		}
		if used {
			return &DamageError{File: dir, Err: errors.New("this folder is missing, although the repository has content; put it back, or " + needed[dir].do)}
		}
	}
	return nil
}
