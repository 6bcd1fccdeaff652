package local

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// Windows flushes only files that are open for writing. Folders cannot be opened for
// writing.
const foldersCanSync = false

// syncFile flushes a file to the disk.
func syncFile(f *os.File) error { return f.Sync() }

func isUnsupported(err error) bool {
	return errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_NOT_SUPPORTED)
}

func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
