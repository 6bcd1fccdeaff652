//go:build !linux

package materialize

import (
	"errors"
	"io/fs"
	"os"
)

// createDirect always fails. The caller then uses os.Root.
func createDirect(*os.File, string, fs.FileMode, *exactModes) (created, error) {
	return nil, errors.ErrUnsupported
}

type exactModes struct{}
