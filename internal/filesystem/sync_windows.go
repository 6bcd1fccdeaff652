package filesystem

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// FoldersCanSync says whether the system can flush folders. Windows flushes only files
// that are open for writing, and folders cannot be opened for writing.
const FoldersCanSync = false

// Sync flushes a file to the disk.
func Sync(f *os.File) error { return f.Sync() }

// IsUnsupported reports whether a file system does not support a call.
func IsUnsupported(err error) bool {
	return errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) || errors.Is(err, errors.ErrUnsupported)
}

// IsTooLarge reports whether err says that a file would become larger than the file
// system allows.
func IsTooLarge(err error) bool { return errors.Is(err, windows.ERROR_FILE_TOO_LARGE) }
