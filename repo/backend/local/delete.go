package local

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	_, err := b.stat(ctx, "delete", name)
	if errors.Is(err, backend.ErrInvalidName) || ctx.Err() != nil {
		return err
	}
	if err == nil {
		err = b.disk.remove(name)
		if isMissing(err) {
			err = backend.ErrNotExist // another process was faster
		}
		if err != nil {
			err = b.fail("delete", name, "", err)
		}
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return err
	}
	// Also if it was gone: the process that removed it may have been killed
	// before this line.
	if errSync := b.disk.syncDir(path.Dir(name)); errSync != nil && !isMissing(errSync) {
		return b.fail("delete", name, "flush folder", errSync)
	}
	return err
}

// RemoveStale removes temporary files that crashed or killed processes left
// behind: those last written before the given time. It must lie so far back
// that no Put that is still at work can have begun before it, with allowance
// for a file server whose clock is wrong; a day is a good choice. A Put whose
// file is removed nevertheless fails, and nothing else happens.
//
// It returns how many it removed. It goes on after an error.
func (b *Backend) RemoveStale(ctx context.Context, before time.Time) (removed int, err error) {
	entries, err := b.disk.readDir(tmpFolder)
	if isMissing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, b.fail("remove stale files", tmpFolder, "list", err)
	}
	var failures []error
	for _, e := range entries {
		name := tmpFolder + "/" + e.Name()
		if err := ctx.Err(); err != nil {
			return removed, b.fail("remove stale files", tmpFolder, "", err)
		}
		if !strings.HasPrefix(name, tmpPrefix) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err == nil && !info.ModTime().Before(before) {
			continue
		}
		if err == nil {
			err = b.disk.remove(name)
		}
		switch {
		case err == nil:
			removed++
		case !isMissing(err):
			failures = append(failures, b.fail("remove stale file", name, "", err))
		}
	}
	return removed, errors.Join(failures...)
}
