package materialize

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"time"

	"github.com/snap-backup/snap/internal/filesystem"
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
	how := unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC,
		Mode:    uint64(mode.Perm()),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := filesystem.RetryValue(func() (int, error) { return unix.Openat2(int(folder.Fd()), path, &how) })
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
		m, err := filesystem.RetryValue(func() (int, error) { return unix.Write(f.fd, b[n:min(len(b), n+1<<30)]) })
		switch {
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

func (f *directFile) finish(mode fs.FileMode, mtime time.Time, refused *refused) error {
	exact, ok := f.exact.known.Load(mode)
	if !ok {
		var stat unix.Stat_t
		if err := filesystem.Retry(func() error { return unix.Fstat(f.fd, &stat) }); err != nil {
			return f.fail("stat", err)
		}
		exact = stat.Mode&0o7777 == uint32(mode.Perm())
		f.exact.known.Store(mode, exact)
	}
	if exact != true {
		err := filesystem.Retry(func() error { return unix.Fchmod(f.fd, uint32(mode.Perm())) })
		if err := refused.mode(err); err != nil {
			return f.fail("chmod", err)
		}
	}
	if err := refused.time(setTimesOf(f.fd, mtime)); err != nil {
		return f.fail("set times", err)
	}
	return nil
}

// setTimesOf sets the times through a file's descriptor or, on Linux before 5.8,
// through its path in /proc.
func setTimesOf(fd int, mtime time.Time) error {
	t, err := unix.TimeToTimespec(mtime)
	if err != nil {
		// The seconds of 32-bit systems end in 2038.
		t = unix.NsecToTimespec(math.MaxInt32 * 1e9)
	}
	times := []unix.Timespec{t, t}
	err = filesystem.Retry(func() error { return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH) })
	if err == unix.EINVAL {
		err = filesystem.Retry(func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0)
		})
	}
	return err
}

// setWideTime sets times that os.Root.Chtimes cannot express.
func setWideTime(root *os.Root, path string, mtime time.Time) error {
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return setTimesOf(int(f.Fd()), mtime)
}

func (f *directFile) Close() error {
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR { // see filesystem.Close
		return f.fail("close", err)
	}
	return nil
}

func (f *directFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}
