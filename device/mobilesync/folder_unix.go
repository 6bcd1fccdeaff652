//go:build unix

package mobilesync

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// folder opens things below one directory and never passes a symbolic link on
// the way: each component is opened relative to the one before.
type folder struct {
	dir  *os.File
	path string
}

func openFolder(path string) (*folder, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &folder{dir, path}, nil
}

func (f *folder) Close() error { return f.dir.Close() }

func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// parent opens the directory that holds the last component of path, which it
// returns too. The caller closes owned directories only.
func (f *folder) parent(path string) (fd int, owned bool, last string, err error) {
	fd = int(f.dir.Fd())
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
		next, err := retry(func() (int, error) {
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

// noFollow gives the errors by which systems answer O_NOFOLLOW on a link one
// name; ENOTDIR is one of them when a directory was asked for.
func noFollow(err error) error {
	if err == unix.ELOOP || err == unix.EMLINK || err == unix.ENOTDIR {
		return errLink
	}
	return err
}

// open opens a regular file for reading. It does not block on a named pipe.
func (f *folder) open(path string) (*os.File, stat, error) {
	fd, err := f.openNoFollow(path)
	if err != nil {
		return nil, stat{}, pathError("open", f.join(path), err)
	}
	var st unix.Stat_t
	_, err = retry(func() (int, error) { return 0, unix.Fstat(fd, &st) })
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return nil, stat{}, pathError("open", f.join(path), err)
	}
	return os.NewFile(uintptr(fd), f.join(path)), fromStat(&st), nil
}

func (f *folder) openNoFollow(path string) (int, error) {
	defer runtime.KeepAlive(f)
	if !fs.ValidPath(path) {
		return 0, unix.EINVAL
	}
	if fd, ok := openBeneath(int(f.dir.Fd()), path); ok {
		return fd, nil
	}
	dir, owned, name, err := f.parent(path)
	if err != nil {
		return 0, err
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if owned {
		unix.Close(dir)
	}
	return fd, noFollow(err)
}

func (f *folder) lstat(path string) (stat, error) {
	defer runtime.KeepAlive(f)
	dir, owned, name, err := f.parent(path)
	if err != nil {
		return stat{}, pathError("lstat", f.join(path), err)
	}
	var st unix.Stat_t
	_, err = retry(func() (int, error) { return 0, unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if owned {
		unix.Close(dir)
	}
	if err != nil {
		return stat{}, pathError("lstat", f.join(path), err)
	}
	return fromStat(&st), nil
}

// list returns the entries of a directory, in no order; "" is the folder itself.
func (f *folder) list(path string) ([]entry, error) {
	defer runtime.KeepAlive(f)
	up, owned, name := int(f.dir.Fd()), false, "."
	if path != "" {
		var err error
		if up, owned, name, err = f.parent(path); err != nil {
			return nil, pathError("open", f.join(path), err)
		}
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(up, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if owned {
		unix.Close(up)
	}
	if err != nil {
		return nil, pathError("open", f.join(path), noFollow(err))
	}
	dir := os.NewFile(uintptr(fd), f.join(path))
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(names))
	for i, name := range names {
		entries[i].name = name
	}
	return entries, statAll(dir, entries)
}

// statAll asks for the attributes of all entries of dir, on all processors
// when there are many: a flat backup has 100,000 files in one directory.
func statAll(dir *os.File, entries []entry) error {
	const batch = 4096
	fd := int(dir.Fd())
	errs := make([]error, (len(entries)+batch-1)/batch)
	if len(errs) <= 1 {
		return statSome(fd, dir.Name(), entries)
	}
	limit := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range errs {
		part := entries[i*batch : min((i+1)*batch, len(entries))]
		limit <- struct{}{}
		wg.Go(func() {
			errs[i] = statSome(fd, dir.Name(), part)
			<-limit
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func statSome(fd int, dir string, entries []entry) error {
	for i := range entries {
		var st unix.Stat_t
		_, err := retry(func() (int, error) {
			return 0, unix.Fstatat(fd, entries[i].name, &st, unix.AT_SYMLINK_NOFOLLOW)
		})
		if err == unix.ENOENT {
			entries[i].gone = true
			continue
		}
		if err != nil {
			return pathError("lstat", filepath.Join(dir, entries[i].name), err)
		}
		entries[i].stat = fromStat(&st)
	}
	return nil
}

func (f *folder) join(path string) string { return filepath.Join(f.path, filepath.FromSlash(path)) }

func fromStat(st *unix.Stat_t) stat {
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
	return stat{
		mode:    mode,
		size:    st.Size,
		modTime: unix.TimespecToNsec(st.Mtim),
		change:  unix.TimespecToNsec(st.Ctim),
		inode:   uint64(st.Ino),
	}
}
