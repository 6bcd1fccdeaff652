package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/pkg/sftp"

	"github.com/snap-backup/snap/repo/backend"
)

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := b.check(ctx, "stat", name); err != nil {
		return backend.Info{}, err
	}
	var info backend.Info
	err := b.do(ctx, "stat", name, func(c *conn) error {
		found, err := b.lstat(c, name)
		if err == nil {
			info = describe(name, found)
		}
		return err
	})
	return info, err
}

// lstat returns what the server says about a regular file. Otherwise the error is that of
// [backend.Backend.Stat].
func (b *Backend) lstat(c *conn, name string) (fs.FileInfo, error) {
	info, err := c.client.Lstat(b.path(name))
	switch {
	case err == nil && info.Mode().IsRegular():
		return info, nil
	case err == nil:
		return nil, notRegular(name)
	case b.isMissing(c, name, err):
		return nil, backend.ErrNotExist
	}
	return nil, err
}

// notRegular returns the error for a name that something other than a regular file has. If
// the name is a hash, a file of the repository was there, and its loss must be noticed.
// Otherwise there is no file of this name.
func notRegular(name string) error {
	if backend.IsHashed(name) {
		return backend.ErrNotRegular
	}
	return fmt.Errorf("%w: %w", backend.ErrNotRegular, backend.ErrNotExist)
}

func describe(name string, info fs.FileInfo) backend.Info {
	return backend.Info{Name: name, Size: max(info.Size(), 0), Modified: modified(info)}
}

// modified returns the time of a file; zero if the server does not tell.
func modified(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*sftp.FileStat); ok && stat.Mtime == 0 {
		return time.Time{}
	}
	return info.ModTime()
}

// ReadAt implements [backend.Backend]. The first read of a file takes three round trips,
// the following ones take one.
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := b.check(ctx, "read", name); err != nil {
		return 0, err
	}
	n, end := 0, false
	err := b.do(ctx, "read", name, func(c *conn) (err error) {
		n, err = b.read(c, name, p, off)
		end = errors.Is(err, io.EOF)
		return err
	})
	if end && err != nil {
		return n, io.EOF
	}
	return n, err
}

var errNegativeOffset = errors.New("negative offset")

func (b *Backend) read(c *conn, name string, p []byte, off int64) (int, error) {
	if f := c.open.use(name); f != nil && off >= 0 && len(p) > 0 {
		n, ok, err := b.reread(c, f, name, p, off)
		c.open.release(f)
		if ok {
			return n, err
		}
		c.open.drop(name)
	} else if f != nil {
		c.open.release(f)
	}
	// Lstat comes first so that links are not followed, and since the server would wait
	// if it opened a pipe.
	info, err := b.lstat(c, name)
	switch {
	case err != nil:
		return 0, err
	case off < 0:
		return 0, errNegativeOffset
	case len(p) == 0:
		return 0, nil
	case off >= info.Size():
		return 0, io.EOF
	}
	file, err := c.client.Open(b.path(name))
	if b.isMissing(c, name, err) {
		return 0, backend.ErrNotExist // deleted just now
	}
	if err != nil {
		return 0, err
	}
	f := c.open.add(name, file, info)
	defer c.open.release(f)
	if off == 0 && int64(len(p)) >= info.Size() {
		c.open.drop(name) // it was read completely
	}
	return readFull(f, p, off)
}

// reread reads a file that is open. At the same time it asks whether the name still
// belongs to this file: another process may have deleted or replaced it. ok is false if
// the file must be opened again.
func (b *Backend) reread(c *conn, f *openFile, name string, p []byte, off int64) (n int, ok bool, err error) {
	same := make(chan bool, 1)
	go func() {
		info, err := c.client.Lstat(b.path(name))
		same <- err == nil && f.isSame(info)
	}()
	if off >= f.size {
		err = io.EOF
	} else {
		n, err = readFull(f, p, off)
	}
	ok = <-same && (err == nil || errors.Is(err, io.EOF))
	return n, ok, err
}

// readFull fills p. A server may return less than it was asked for, which the client takes
// for the end of the file.
func readFull(f *openFile, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := f.ReadAt(p[n:], off+int64(n))
		n += m
		switch {
		case errors.Is(err, io.EOF) && m > 0 && off+int64(n) < f.size:
		case n == len(p):
			return n, nil
		case err != nil:
			return n, err
		case m == 0:
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}
