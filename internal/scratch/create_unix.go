//go:build unix

package scratch

import (
	"errors"
	"os"
)

// createRemoved creates a file in dir and removes its name, so that the system frees
// it when it is closed or the process ends.
func createRemoved(dir string) (f *os.File, err error) {
	if f, err = os.CreateTemp(dir, "snap-scratch-*"); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
