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
	if err == nil || errors.Is(err, backend.ErrNotRegular) && !errors.Is(err, backend.ErrNotExist) {
		// This removes a link, never its target, and a folder only if it is empty.
		err = b.disk.remove(name)
		if isMissing(err) {
			err = backend.ErrNotExist // another process removed it
		}
		if err != nil {
			err = b.opError("delete", name, "", err)
		}
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return err
	}
	// Flush even if the file did not exist: the process that removed it may have been
	// killed before it flushed the folder.
	if errSync := b.disk.syncDir(path.Dir(name)); errSync != nil && !isMissing(errSync) {
		return b.opError("delete", name, "flush folder", errSync)
	}
	return err
}

// RemoveStale removes temporary files that crashed or killed processes have left. It
// removes those that were last written at least age ago, by the clock of the file system.
// Choose an age, such as a day, that no running Put reaches. If the file of a running Put
// is removed, only this Put fails.
//
// RemoveStale returns the number of removed files. It continues after errors.
func (b *Backend) RemoveStale(ctx context.Context, age time.Duration) (removed int, err error) {
	entries, err := b.disk.readDir(tmpFolder)
	if isMissing(err) || err == nil && len(entries) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, b.opError("remove stale files", tmpFolder, "list", err)
	}
	now, err := b.diskTime()
	if err != nil {
		return 0, b.opError("remove stale files", tmpFolder, "", err)
	}
	var failures []error
	for _, e := range entries {
		name := tmpFolder + "/" + e.Name()
		if err := ctx.Err(); err != nil {
			return removed, b.opError("remove stale files", tmpFolder, "", err)
		}
		if !strings.HasPrefix(name, tmpPrefix) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err == nil && now.Sub(info.ModTime()) < age {
			continue
		}
		if err == nil {
			err = b.disk.remove(name)
		}
		switch {
		case err == nil:
			removed++
		case !isMissing(err):
			failures = append(failures, b.opError("remove stale file", name, "", err))
		}
	}
	return removed, errors.Join(failures...)
}

// diskTime returns the time by the clock of the file system: that of a new file. If none
// can be made, for example because the disk is full, it is that of the folder tmp, which
// is not later.
func (b *Backend) diskTime() (time.Time, error) {
	name := tmpFolder
	if temp, f, err := b.createTemp(); err == nil {
		defer func() { _ = b.disk.remove(temp) }()
		if err := f.Close(); err != nil {
			return time.Time{}, err
		}
		name = temp
	}
	info, err := b.disk.lstat(name)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
