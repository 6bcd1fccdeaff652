//go:build !linux

package materialize

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// createDirect always fails. The caller then uses os.Root.
func createDirect(*os.File, string, fs.FileMode, *exactModes) (created, error) {
	return nil, errors.ErrUnsupported
}

type exactModes struct{}

// setWideTime always fails: the file systems of macOS have the same limits as an
// int64 of nanoseconds, and Go cannot set such times on Windows.
func setWideTime(*os.Root, string, time.Time) error { return errors.ErrUnsupported }
