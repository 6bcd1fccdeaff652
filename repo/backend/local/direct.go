//go:build linux || darwin

package local

import (
	"io"
	"os"

	"github.com/snap-backup/snap/internal/filesystem"
	"golang.org/x/sys/unix"
)

// openDirect opens a regular file below folder with one system call that follows no
// links. os.Root makes a call for each folder, and more calls to get the file's type.
// These calls take much of the time of a small read. ok is false on any error. The
// caller then uses os.Root, which returns the reason.
func openDirect(folder *os.File, name string) (c content, ok bool) {
	if folder == nil {
		return nil, false
	}
	fd, err := openNoLinks(int(folder.Fd()), name)
	if err != nil {
		return nil, false
	}
	var stat unix.Stat_t
	if err := filesystem.Retry(func() error { return unix.Fstat(fd, &stat) }); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return nil, false
	}
	return &directFile{fd, stat.Size}, true
}

type directFile struct {
	fd   int
	size int64
}

func (f *directFile) Size() int64 { return f.size }

func (f *directFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		// Some systems refuse more than 2 GiB at a time.
		m, err := filesystem.RetryValue(func() (int, error) {
			return unix.Pread(f.fd, p[n:min(len(p), n+1<<30)], off+int64(n))
		})
		switch {
		case err != nil:
			return n, err
		case m == 0:
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

func (f *directFile) Close() error { return unix.Close(f.fd) }
