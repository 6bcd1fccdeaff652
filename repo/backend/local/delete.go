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
			err = backend.ErrNotExist // another process removed it
		}
		if err != nil {
			err = b.fail("delete", name, "", err)
		}
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return err
	}
	// Flush even if the file did not exist: the process that removed it may have been
	// killed before it flushed the folder.
	if errSync := b.disk.syncDir(path.Dir(name)); errSync != nil && !isMissing(errSync) {
		return b.fail("delete", name, "flush folder", errSync)
	}
	return err
}

// RemoveStale removes temporary files that crashed or killed processes have left. It
// removes those that were last written before the given time. Choose a time, such as a
// day ago, before which no running Put can have begun, even if the clock of a file
// server is wrong. If the file of a running Put is removed, only this Put fails.
//
// RemoveStale returns the number of removed files. It continues after errors.
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
