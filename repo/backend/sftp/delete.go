package sftp

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	if err := b.check(ctx, "delete", name); err != nil {
		return err
	}
	return b.do(ctx, "delete", name, func(c *conn) error { return b.remove(c, name) })
}

func (b *Backend) remove(c *conn, name string) error {
	c.open.drop(name)
	_, err := b.lstat(c, name)
	if err == nil || errors.Is(err, backend.ErrNotRegular) && !errors.Is(err, backend.ErrNotExist) {
		// This removes a link, never its target, and a folder only if it is empty.
		err = c.client.Remove(b.path(name))
		if b.isMissing(c, name, err) {
			err = backend.ErrNotExist // another process removed it
		}
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err // the message names the path
		}
		if err != nil {
			err = b.explain(c, err, 0)
		}
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return err
	}
	// Flush even if the file did not exist: the process that removed it may have been
	// killed before it flushed the folder.
	if errFlush := b.flushFolder(c, path.Dir(name)); errFlush != nil && !errors.Is(errFlush, fs.ErrNotExist) {
		return errFlush
	}
	return err
}

// RemoveStale removes temporary files that crashed or killed processes have left. It
// removes those that were last written at least age ago, by the server's clock. Choose an
// age, such as a day, that no running Put reaches. If the file of a running Put is
// removed, only this Put fails.
//
// RemoveStale returns the number of removed files. It continues after errors.
func (b *Backend) RemoveStale(ctx context.Context, age time.Duration) (removed int, err error) {
	const op = "remove stale files"
	err = b.do(ctx, op, tmpFolder, func(c *conn) error {
		entries, err := c.client.ReadDir(b.path(tmpFolder))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		now, err := b.serverTime(c)
		if err != nil {
			return err
		}
		var failures []error
		for _, e := range entries {
			name := tmpFolder + "/" + e.Name()
			if err := ctx.Err(); err != nil {
				return err
			}
			if !strings.HasPrefix(name, tmpPrefix) || !e.Mode().IsRegular() || now.Sub(e.ModTime()) < age {
				continue
			}
			err := c.client.Remove(b.path(name))
			switch {
			case err == nil:
				removed++
			case c.broken():
				return err
			case !errors.Is(err, fs.ErrNotExist):
				failures = append(failures, err)
			}
		}
		return errors.Join(failures...)
	})
	return removed, err
}

// serverTime returns the time by the server's clock: that of a new file. If none can be
// made, for example because the disk is full, it is that of the folder tmp, which is not
// later.
func (b *Backend) serverTime(c *conn) (time.Time, error) {
	name := tmpFolder
	if temp, f, err := b.createTemp(c); err == nil {
		_ = f.Close()
		defer b.discard(c, temp, nil)
		name = temp
	}
	info, err := c.client.Lstat(b.path(name))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
