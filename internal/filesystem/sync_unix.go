//go:build !windows

package filesystem

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// FoldersCanSync says whether the system can flush folders.
const FoldersCanSync = true

// Sync flushes a file or folder to the disk.
func Sync(f *os.File) error {
	err := f.Sync()
	if err == nil || !IsUnsupported(err) {
		return err
	}
	// On macOS Sync also flushes the cache of the drive (F_FULLFSYNC). Shares that do
	// not support this may still support fsync.
	if Retry(func() error { return unix.Fsync(int(f.Fd())) }) == nil {
		return nil
	}
	return err
}

// IsUnsupported reports whether a file system does not support a call. File systems
// use different errors for that.
func IsUnsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.ENOTSUP, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, errors.ErrUnsupported)
}

// IsTooLarge reports whether err says that a file would become larger than the file
// system allows.
func IsTooLarge(err error) bool { return errors.Is(err, unix.EFBIG) }
