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
	// On macOS Sync also flushes the cache of the drive (F_FULLFSYNC). Shares that do
	// not support this may still support fsync.
	if unix.Fsync(int(f.Fd())) == nil {
		return nil
	}
	return err
}

// isUnsupported reports whether a file system does not support a call. File systems
// use different errors for that.
func isUnsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.ENOTSUP, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }
