package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// hintNothingDone is the hint if a path cannot be used. Paths are checked before the work.
const hintNothingDone = "nothing was done; make the folder first, or choose another one"

// checkTarget returns an error if no files can be written into a folder that may not exist
// yet. If deep is true, folders above it may be missing, too. It leaves nothing behind.
func checkTarget(dir string, deep bool) error {
	dir = filepath.Clean(dir)
	for {
		_, err := os.Stat(dir)
		above := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || above == dir {
			break
		}
		if _, err := os.Lstat(dir); err == nil {
			return advised{fmt.Errorf("%s is a link that leads to nothing", dir), hintNothingDone}
		}
		if dir = above; !deep {
			break
		}
	}
	return checkFolder(dir)
}

// checkFolder returns an error if no files can be written into a folder. It leaves nothing
// behind.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return advised{fmt.Errorf("the folder %s does not exist", dir), hintNothingDone}
	case err == nil && !info.IsDir():
		return advised{fmt.Errorf("%s is not a folder", dir), hintNothingDone}
	case err == nil:
		err = tryFolder(dir)
	}
	if err != nil {
		return fmt.Errorf("the folder %s cannot be used: %w", dir, reason(err))
	}
	return nil
}

// tryFolder creates a file in a folder and removes it.
func tryFolder(dir string) error {
	var f *os.File
	err := whileBusy(func() (err error) { f, err = os.CreateTemp(dir, ".snap-*"); return err })
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), whileBusy(func() error { return os.Remove(f.Name()) }))
}

// whileBusy calls do again while the server of a share is too busy for it, for three seconds.
func whileBusy(do func() error) error {
	err := do()
	for range 10 {
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(300 * time.Millisecond)
		err = do()
	}
	return err
}

// reason returns the cause of an error without the call and the path that failed.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
