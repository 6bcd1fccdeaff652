//go:build !linux

package transfer

import (
	"errors"
	"io/fs"
	"os"
)

// createDirect has no short way here.
func createDirect(*os.File, string, fs.FileMode, *exactModes) (created, error) {
	return nil, errors.ErrUnsupported
}

type exactModes struct{}
