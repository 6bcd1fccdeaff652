package materialize

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// createDirect creates a file below folder with one system call that follows no
// links. Writing the file takes four more calls. os.Root takes three times as
// many, which matters for a backup with a hundred thousand small files. After
// an error other than fs.ErrExist and fs.ErrNotExist the caller must use
// os.Root.
func createDirect(folder *os.File, path string, mode fs.FileMode, exact *exactModes) (created, error) {
	if folder == nil {
		return nil, unix.ENOSYS
	}
	fd, err := unix.Openat2(int(folder.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC,
		Mode:    uint64(mode.Perm()),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	return &directFile{fd, path, exact}, nil
}

// exactModes remembers, for each mode, whether new files get it unchanged. The
// process's umask or the folder's access list can remove bits, but removes the
// same bits from all files.
type exactModes struct{ known sync.Map } // fs.FileMode to bool

type directFile struct {
	fd    int
	path  string
	exact *exactModes
}

func (f *directFile) Write(b []byte) (n int, err error) {
	for n < len(b) {
		// The system takes no more than 2 GiB at a time.
		m, err := unix.Write(f.fd, b[n:min(len(b), n+1<<30)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, f.fail("write", err)
		case m == 0:
			return n, f.fail("write", io.ErrUnexpectedEOF)
		default:
			n += m
		}
	}
	return n, nil
}

func (f *directFile) finish(mode fs.FileMode, mtime time.Time) error {
	exact, ok := f.exact.known.Load(mode)
	if !ok {
		var stat unix.Stat_t
		if err := unix.Fstat(f.fd, &stat); err != nil {
			return f.fail("stat", err)
		}
		exact = stat.Mode&0o7777 == uint32(mode.Perm())
		f.exact.known.Store(mode, exact)
	}
	if exact != true {
		if err := unix.Fchmod(f.fd, uint32(mode.Perm())); err != nil {
			return f.fail("chmod", err)
		}
	}
	return f.setTimes(mtime)
}

// setTimes sets the times through the file's descriptor or, on Linux before
// 5.8, through its path in /proc.
func (f *directFile) setTimes(mtime time.Time) error {
	t, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return f.fail("set times", err)
	}
	times := []unix.Timespec{t, t}
	if err = unix.UtimesNanoAt(f.fd, "", times, unix.AT_EMPTY_PATH); err == unix.EINVAL {
		err = os.Chtimes(fmt.Sprintf("/proc/self/fd/%d", f.fd), mtime, mtime)
	}
	if err != nil {
		return f.fail("set times", err)
	}
	return nil
}

func (f *directFile) Close() error {
	if err := unix.Close(f.fd); err != nil {
		return f.fail("close", err)
	}
	return nil
}

func (f *directFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}
