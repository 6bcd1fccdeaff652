package sftp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/pkg/sftp"

	"github.com/snap-backup/snap/repo/backend"
)

const (
	tmpFolder = "tmp"
	tmpPrefix = tmpFolder + "/put-"
	// writesAtATime is how many writes of 32 KiB wait for their answers.
	writesAtATime = 64
)

// Put implements [backend.Backend]. Where nothing depends on an answer, requests are sent
// together: a small file takes seven round trips.
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	if err := b.check(ctx, "put", name); err != nil {
		return err
	}
	return b.do(ctx, "put", name, func(c *conn) error { return b.put(ctx, c, name, data) })
}

func (b *Backend) put(ctx context.Context, c *conn, name string, data []byte) error {
	if !c.has(fsyncExtension) && !b.noFsync.Load() {
		return errNoFsync
	}
	exists := async(func() error {
		_, err := c.client.Lstat(b.path(name))
		return err
	})
	temp, f, err := b.createTemp(c)
	if errExists := <-exists; errExists == nil {
		b.discard(c, temp, f)
		return b.putExisting(c, name)
	}
	if err != nil {
		return b.explain(c, fmt.Errorf("create temporary file: %w", err), 1)
	}
	if err := b.fill(ctx, c, temp, f, data); err != nil {
		b.discard(c, temp, f)
		return b.explain(c, err, len(data))
	}
	if err := f.Close(); err != nil {
		b.discard(c, temp, nil)
		return b.explain(c, fmt.Errorf("close: %w", err), len(data))
	}
	return b.publish(c, temp, name)
}

var errNoFsync = fmt.Errorf("%w (the server does not offer fsync@openssh.com)", backend.ErrNoFsync)

// async runs a request while the caller sends others.
func async(request func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- request() }()
	return done
}

// beside is async for a request whose failure does not matter.
func beside(request func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		request()
		close(done)
	}()
	return func() { <-done }
}

// discard removes a temporary file. If that fails, RemoveStale does it later.
func (b *Backend) discard(c *conn, temp string, f *sftp.File) {
	if temp == "" || c.broken() {
		return
	}
	if f != nil {
		_ = f.Close()
	}
	_ = c.client.Remove(b.path(temp))
}

func (b *Backend) createTemp(c *conn) (temp string, f *sftp.File, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	temp = tmpPrefix + hex.EncodeToString(random[:])
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err = c.client.OpenFile(b.path(temp), flags)
	if errors.Is(err, fs.ErrNotExist) {
		if err := b.mkdir(c, tmpFolder); err != nil && !isFolder(c, b.path(tmpFolder)) {
			return "", nil, err
		}
		f, err = c.client.OpenFile(b.path(temp), flags)
	}
	if err != nil {
		return "", nil, err
	}
	return temp, f, nil
}

func isFolder(c *conn, path string) bool {
	info, err := c.client.Lstat(path)
	return err == nil && info.IsDir()
}

// fill writes data to a new file, and flushes it. The client allows one call at a time for
// an open file, so the calls that run beside others name the file by its path.
func (b *Backend) fill(ctx context.Context, c *conn, temp string, f *sftp.File, data []byte) error {
	// Until its group is known, the file is private. File systems without modes refuse.
	private := beside(func() { _ = c.client.Chmod(b.path(temp), 0o600) })
	_, err := f.ReadFromWithConcurrency(&cancellable{ctx, bytes.NewReader(data)}, max(1, min(writesAtATime, len(data)>>15+1)))
	private()
	if err != nil {
		return wrapStep("write", err)
	}
	flushed := async(func() error { return b.flush(c, f) })
	info, err := c.client.Lstat(b.path(temp))
	if err := <-flushed; err != nil {
		return wrapStep("flush", err)
	}
	if err != nil {
		return wrapStep("read the size", err)
	}
	if info.Size() != int64(len(data)) {
		return fmt.Errorf("the server stored %d of %d bytes", info.Size(), len(data))
	}
	if c.shape.isShared() {
		share(c, f, info)
	}
	return nil
}

func wrapStep(step string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s: %w", step, err)
}

// cancellable is a reader that ends with the error of its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// share gives a new file the group of the repository's folder, and that group's
// permissions. If the group cannot be set, the file stays private.
func share(c *conn, f *sftp.File, info fs.FileInfo) {
	stat, ok := info.Sys().(*sftp.FileStat)
	if !ok || stat.GID != c.shape.gid && f.Chown(int(stat.UID), int(c.shape.gid)) != nil {
		return
	}
	_ = f.Chmod(c.shape.fileMode())
}

// flush makes the content of an open file durable.
func (b *Backend) flush(c *conn, f *sftp.File) error {
	if !c.has(fsyncExtension) {
		return nil // allowed, or Put had refused
	}
	err := f.Sync()
	if code(err) == codeUnsupported || code(err) == codeBadMessage { // ENOSYS, EINVAL
		if b.noFsync.Load() {
			return nil
		}
		return fmt.Errorf("%w (%w)", backend.ErrNoFsync, err)
	}
	return err
}

// flushFolder makes the entries of a folder durable, as far as the server can.
func (b *Backend) flushFolder(c *conn, folder string) error {
	if !c.has(fsyncExtension) || b.noFolderFlush.Load() {
		return nil
	}
	f, err := c.client.Open(b.path(folder))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrPermission), code(err) != 0:
		b.noFolderFlush.Store(true) // this server does not open folders
		return nil
	case err != nil:
		return err
	}
	err = f.Sync()
	go f.Close() // nobody waits for the answer
	if code(err) == codeUnsupported || code(err) == codeBadMessage {
		b.noFolderFlush.Store(true)
		return nil
	}
	if err != nil {
		return fmt.Errorf("flush folder: %w", err)
	}
	return nil
}

// putExisting flushes the entry of an existing file and returns ErrExist. The process
// that put the file may have been killed before it flushed the entry, and the caller
// will rely on the file.
func (b *Backend) putExisting(c *conn, name string) error {
	if err := b.ensureFolder(c, name); err != nil {
		return err
	}
	if err := b.flushFolder(c, path.Dir(name)); err != nil {
		return err
	}
	if info, err := c.client.Lstat(b.path(name)); err == nil && !info.Mode().IsRegular() && backend.IsHashed(name) {
		return notRegular(name) // the caller must not rely on it
	}
	return backend.ErrExist
}

// publish gives the flushed file temp its name, makes the name durable, and removes temp.
func (b *Backend) publish(c *conn, temp, name string) error {
	err := b.ensureFolder(c, name)
	if err == nil {
		err = b.giveName(c, temp, name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		b.folders.forget() // an empty folder that this process made has been removed
		if err = b.ensureFolder(c, name); err == nil {
			err = b.giveName(c, temp, name)
		}
	}
	// After a link the name in tmp still exists, after a rename it does not.
	removed := beside(func() {
		if err != nil || c.has(linkExtension) && !b.noLink.Load() {
			b.discard(c, temp, nil)
		}
	})
	defer removed()
	if errors.Is(err, fs.ErrExist) {
		return b.putExisting(c, name)
	}
	if err != nil {
		return b.explain(c, err, 1)
	}
	return b.flushFolder(c, path.Dir(name))
}

// giveName links or renames temp to name. The error is fs.ErrExist if name exists.
func (b *Backend) giveName(c *conn, temp, name string) error {
	linked := c.has(linkExtension) && !b.noLink.Load()
	if linked {
		err := c.client.Link(b.path(temp), b.path(name))
		if err == nil || c.broken() {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// The name is taken, or the file system has no hard links: servers do not say which.
	b.renameMu.Lock()
	defer b.renameMu.Unlock()
	_, err := c.client.Lstat(b.path(name))
	if err == nil {
		return fs.ErrExist
	}
	if !b.isMissing(c, name, err) {
		return err
	}
	if err := c.client.Rename(b.path(temp), b.path(name)); err != nil {
		if _, errStat := c.client.Lstat(b.path(name)); errStat == nil {
			return fs.ErrExist // another process was faster
		}
		return fmt.Errorf("rename: %w", err)
	}
	if linked {
		b.noLink.Store(true)
	}
	return nil
}
