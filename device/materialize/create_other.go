//go:build !linux

package materialize

import (
	"errors"
	"io/fs"
	"os"
)

// createDirect does not work here.
func createDirect(*os.File, string, fs.FileMode, *exactModes) (created, error) {
	return nil, errors.ErrUnsupported
}

type exactModes struct{}
