package local

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"

	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo/backend"
)

const (
	tmpFolder = "tmp"
	tmpPrefix = tmpFolder + "/put-"
	// defaultWriteSize is the number of bytes written between two checks of the
	// context.
	defaultWriteSize = 1 << 20
)

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	if err := b.checkCall(ctx, "put", name); err != nil {
		return err
	}
	if _, err := b.disk.lstat(name); err == nil {
		return b.putExisting(name)
	}
	temp, err := b.writeTemp(ctx, name, data)
	if err != nil {
		return err
	}
	err = b.publish(temp, name)
	// After a link the name in tmp still exists, after a rename it does not. A failure
	// to remove it is harmless: RemoveStale removes it later.
	_ = b.disk.remove(temp)
	return err
}

// putExisting flushes the entry of an existing file and returns ErrExist. The process
// that put the file may have been killed before it flushed the entry, and the caller
// will rely on the file.
func (b *Backend) putExisting(name string) error {
	if err := b.ensureFolder(name); err != nil {
		return err
	}
	if err := b.disk.syncDir(path.Dir(name)); err != nil {
		return b.opError("put", name, "flush folder", err)
	}
	if info, err := b.disk.lstat(name); err == nil && !info.Mode().IsRegular() && backend.IsHashed(name) {
		return b.notRegular("put", name) // the caller must not rely on it
	}
	return b.opError("put", name, "", backend.ErrExist)
}

// writeTemp writes data to a file in tmp and flushes it.
func (b *Backend) writeTemp(ctx context.Context, name string, data []byte) (temp string, err error) {
	temp, f, err := b.createTemp()
	if err != nil {
		return "", b.opError("put", name, "create temporary file", err)
	}
	step, err := b.writeAll(ctx, f, data)
	if errClose := filesystem.Close(f); err == nil && errClose != nil {
		// Network file systems report here that the server is full.
		step, err = "close", errClose
	}
	if err != nil {
		_ = b.disk.remove(temp)
		return "", b.opError("put", name, step, err)
	}
	return temp, nil
}

func (b *Backend) createTemp() (string, file, error) {
	var random [16]byte
	if _, err := io.ReadFull(b.random, random[:]); err != nil {
		return "", nil, err
	}
	temp := tmpPrefix + hex.EncodeToString(random[:])
	f, err := b.disk.create(temp)
	if errors.Is(err, fs.ErrNotExist) {
		if err := b.disk.mkdir(tmpFolder); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", nil, err
		}
		f, err = b.disk.create(temp)
	}
	return temp, f, err
}

// writeAll writes data and flushes the file. If that fails, step names the step that
// failed.
func (b *Backend) writeAll(ctx context.Context, f file, data []byte) (step string, err error) {
	for len(data) > 0 {
		if err := ctx.Err(); err != nil {
			return "write", err
		}
		n := min(b.writeSize, len(data))
		if _, err := f.Write(data[:n]); err != nil {
			return "write", err
		}
		data = data[n:]
	}
	return "flush", b.flush(f)
}

// publish gives the flushed file temp its name and makes the name durable. It depends
// on the file system whether temp still exists afterwards.
func (b *Backend) publish(temp, name string) error {
	if err := b.ensureFolder(name); err != nil {
		return err
	}
	err := b.disk.link(temp, name)
	if errors.Is(err, fs.ErrNotExist) {
		// An empty folder that this process made has been removed.
		b.folders.forget()
		if err := b.ensureFolder(name); err != nil {
			return err
		}
		err = b.disk.link(temp, name)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// File systems without hard links return too many different errors to list.
		// If link failed for another reason, renaming fails, too.
		err = b.renameNew(temp, name)
	}
	if errors.Is(err, fs.ErrExist) && !b.sameFile(temp, name) {
		return b.putExisting(name)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return b.opError("put", name, "rename", err)
	}
	if err := b.disk.syncDir(path.Dir(name)); err != nil {
		return b.opError("put", name, "flush folder", err)
	}
	return nil
}

// renameNew renames temp to name, or returns fs.ErrExist if name exists.
func (b *Backend) renameNew(temp, name string) error {
	b.renameMu.Lock()
	defer b.renameMu.Unlock()
	_, err := b.disk.lstat(name)
	if err == nil {
		return fs.ErrExist
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return b.disk.rename(temp, name)
}

// sameFile reports whether both names refer to the same file. If so, link
// succeeded although it returned an error. This happens if the response of a file
// server is lost and the request is repeated.
func (b *Backend) sameFile(temp, name string) bool {
	x, err := b.disk.lstat(temp)
	if err != nil {
		return false
	}
	y, err := b.disk.lstat(name)
	return err == nil && b.disk.sameInfo(x, y)
}

// ensureFolder makes the folder of a file, if necessary, and flushes the entries of
// this folder and of all folders above it.
func (b *Backend) ensureFolder(name string) error {
	b.folders.mu.Lock()
	defer b.folders.mu.Unlock()
	for i := range len(name) {
		if name[i] != '/' || b.folders.known[name[:i]] {
			continue
		}
		folder := name[:i]
		err := b.disk.mkdir(folder)
		if errors.Is(err, fs.ErrExist) {
			var info fs.FileInfo
			if info, err = b.disk.lstat(folder); err == nil && !info.IsDir() {
				return b.notFolder("put", folder, info.Mode())
			}
		}
		if err != nil {
			return b.opError("put", name, "make folder "+b.path(folder), err)
		}
		// Flush even if the folder existed: another process may have made it and been
		// killed before flushing it.
		if err := b.disk.syncDir(path.Dir(folder)); err != nil {
			return b.opError("put", name, "flush folder", err)
		}
		b.folders.add(folder)
	}
	return nil
}

// flushedFolders are the folders whose entries this process has flushed, so that it
// flushes them only once.
type flushedFolders struct {
	mu    sync.Mutex
	known map[string]bool
}

// maxKnown is how many folders are remembered. A repository has hundreds, but clients of a
// server can make any number.
const maxKnown = 10_000

func (d *flushedFolders) add(folder string) {
	if d.known == nil || len(d.known) >= maxKnown {
		d.known = make(map[string]bool)
	}
	d.known[folder] = true
}

func (d *flushedFolders) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = nil
}
