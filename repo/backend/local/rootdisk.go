package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo/backend"
)

// rootDisk is the real disk. os.Root confines all operations to the folder.
type rootDisk struct {
	root   *os.Root
	folder *os.File // the same folder, for openDirect and share; may be nil
}

func newRootDisk(root *os.Root) rootDisk {
	folder, err := root.Open(".")
	if err != nil {
		folder = nil // reading is slower without it
	}
	return rootDisk{root, folder}
}

func (d rootDisk) close() error {
	if d.folder == nil {
		return d.root.Close()
	}
	return errors.Join(d.folder.Close(), d.root.Close())
}

func (d rootDisk) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	share(d.folder, f)
	return osFile{f}, nil
}

func (d rootDisk) mkdir(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	if f, err := d.root.Open(name); err == nil {
		share(d.folder, f)
		_ = f.Close()
	}
	return nil
}

func (d rootDisk) link(from, to string) error   { return d.root.Link(from, to) }
func (d rootDisk) rename(from, to string) error { return d.root.Rename(from, to) }
func (d rootDisk) remove(name string) error     { return d.root.Remove(name) }
func (d rootDisk) syncDir(name string) error {
	if !filesystem.FoldersCanSync {
		return nil
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return filesystem.SyncFolder(f)
}

func (d rootDisk) open(name string) (content, error) {
	if c, ok := openDirect(d.folder, name); ok {
		return c, nil
	}
	// Lstat comes first so that links are not followed and pipes do not block.
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, backend.ErrNotRegular
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	return sizedFile{f, info.Size()}, nil
}

func (d rootDisk) lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }
func (d rootDisk) sameInfo(x, y fs.FileInfo) bool         { return os.SameFile(x, y) }

func (d rootDisk) readDir(name string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// sizedFile is a file that does not change.
type sizedFile struct {
	*os.File
	size int64
}

func (f sizedFile) Size() int64 { return f.size }

type osFile struct {
	*os.File
}

func (f osFile) Sync() error { return filesystem.Sync(f.File) }

// syncParent flushes the entry of dir itself. If this process may not read the folder
// above, it does nothing.
func syncParent(dir string) error {
	if !filesystem.FoldersCanSync {
		return nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Dir(abs))
	if os.IsPermission(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return filesystem.SyncFolder(f)
}
