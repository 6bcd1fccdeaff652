//go:build !windows

package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const foldersCanSync = true

// syncFile flushes a file or folder to the disk.
func syncFile(f *os.File) error {
	err := f.Sync()
	if err == nil || !isUnsupported(err) {
		return err
	}
	// On macOS Sync also empties the cache of the drive (F_FULLFSYNC). Shares
	// that cannot do that may still know the plain call.
	if unix.Fsync(int(f.Fd())) == nil {
		return nil
	}
	return err
}

// isUnsupported reports whether a file system said that it has no such call,
// in one of the ways in which they say that.
func isUnsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.ENOTSUP, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }
