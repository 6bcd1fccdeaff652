//go:build unix

package folder

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/internal/filesystem"
	"golang.org/x/sys/unix"
)

// disk opens files below one directory and never passes a symbolic link: each
// component is opened relative to the one before.
type disk struct {
	dir  *os.File
	path string
}

func openDisk(path string) (*disk, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &disk{dir, path}, nil
}

// Close implements Source.
func (d *disk) Close() error { return d.dir.Close() }

// parent opens the directory that holds the last component of path. It returns
// the directory as fd, and the component as last. The caller closes fd if owned
// is true.
func (d *disk) parent(path string) (fd int, owned bool, last string, err error) {
	fd = int(d.dir.Fd())
	for {
		name, rest, more := strings.Cut(path, "/")
		if name == "" || name == "." || name == ".." {
			if owned {
				unix.Close(fd)
			}
			return 0, false, "", unix.EINVAL
		}
		if !more {
			return fd, owned, name, nil
		}
		next, err := filesystem.RetryValue(func() (int, error) {
			return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		if owned {
			unix.Close(fd)
		}
		if err != nil {
			return 0, false, "", noFollow(err)
		}
		fd, owned, path = next, true, rest
	}
}

// noFollow returns ErrLink instead of the errors with which systems refuse to open
// a link with O_NOFOLLOW. With O_DIRECTORY, ENOTDIR is one of these errors.
func noFollow(err error) error {
	if err == unix.ELOOP || err == unix.EMLINK || err == unix.ENOTDIR {
		return ErrLink
	}
	return err
}

// openFile opens a regular file for reading. It does not block on a named pipe.
func (d *disk) openFile(path string) (*os.File, Stat, error) {
	fd, err := d.openNoFollow(path)
	if err != nil {
		return nil, Stat{}, pathError("open", d.join(path), err)
	}
	var st unix.Stat_t
	err = filesystem.Retry(func() error { return unix.Fstat(fd, &st) })
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return nil, Stat{}, pathError("open", d.join(path), err)
	}
	return os.NewFile(uintptr(fd), d.join(path)), fromStat(&st), nil
}

func (d *disk) openNoFollow(path string) (int, error) {
	defer runtime.KeepAlive(d)
	if !fs.ValidPath(path) {
		return 0, unix.EINVAL
	}
	if fd, ok := openBeneath(int(d.dir.Fd()), path); ok {
		return fd, nil
	}
	dir, owned, name, err := d.parent(path)
	if err != nil {
		return 0, err
	}
	fd, err := filesystem.RetryValue(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if owned {
		unix.Close(dir)
	}
	return fd, noFollow(err)
}

// Lstat implements Source.
func (d *disk) Lstat(path string) (Stat, error) {
	defer runtime.KeepAlive(d)
	dir, owned, name, err := d.parent(path)
	if err != nil {
		return Stat{}, pathError("lstat", d.join(path), err)
	}
	var st unix.Stat_t
	err = filesystem.Retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if owned {
		unix.Close(dir)
	}
	if err != nil {
		return Stat{}, pathError("lstat", d.join(path), err)
	}
	return fromStat(&st), nil
}

// List implements Source.
func (d *disk) List(path string) ([]Entry, error) {
	defer runtime.KeepAlive(d)
	up, owned, name := int(d.dir.Fd()), false, "."
	if path != "" {
		var err error
		if up, owned, name, err = d.parent(path); err != nil {
			return nil, pathError("open", d.join(path), err)
		}
	}
	fd, err := filesystem.RetryValue(func() (int, error) {
		return unix.Openat(up, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if owned {
		unix.Close(up)
	}
	if err != nil {
		return nil, pathError("open", d.join(path), noFollow(err))
	}
	dir := os.NewFile(uintptr(fd), d.join(path))
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	entries := make([]Entry, len(names))
	for i, name := range names {
		entries[i].Name = name
	}
	statAll(dir, entries)
	return entries, err
}

// statAll reads the attributes of all entries of dir. If there are many, it
// uses all processors: a flat backup has 100,000 files in one directory.
func statAll(dir *os.File, entries []Entry) {
	const batch = 4096
	fd := int(dir.Fd())
	if len(entries) <= batch {
		statSome(fd, dir.Name(), entries)
		return
	}
	limit := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for part := range slices.Chunk(entries, batch) {
		limit <- struct{}{}
		wg.Go(func() {
			statSome(fd, dir.Name(), part)
			<-limit
		})
	}
	wg.Wait()
}

func statSome(fd int, dir string, entries []Entry) {
	for i := range entries {
		var st unix.Stat_t
		err := filesystem.Retry(func() error {
			return unix.Fstatat(fd, entries[i].Name, &st, unix.AT_SYMLINK_NOFOLLOW)
		})
		if err == unix.ENOENT {
			entries[i].Gone = true
			continue
		}
		if err != nil {
			entries[i].Err = pathError("lstat", filepath.Join(dir, entries[i].Name), err)
			continue
		}
		entries[i].Stat = fromStat(&st)
	}
}

func (d *disk) join(path string) string { return filepath.Join(d.path, filepath.FromSlash(path)) }

func fromStat(st *unix.Stat_t) Stat {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	default:
		mode |= fs.ModeIrregular
	}
	return Stat{
		Mode:    mode,
		Size:    st.Size,
		ModTime: time.Unix(st.Mtim.Unix()),
		Change:  unix.TimespecToNsec(st.Ctim),
		Inode:   uint64(st.Ino),
	}
}
