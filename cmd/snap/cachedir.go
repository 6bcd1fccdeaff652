package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// cacheDir returns a folder in the user's cache folder, for files whose loss does no
// harm.
func cacheDir(name string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		// Another user may have made this folder first.
		base = filepath.Join(os.TempDir(), fmt.Sprintf("snap-%d", os.Getuid()))
		if err := makePrivate(base); err != nil {
			return "", err
		}
	}
	return filepath.Join(base, "snap", name), nil
}

// makePrivate makes a private folder, or checks that an existing one is private.
func makePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the cache folder: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check the cache folder: %w", err)
	}
	if why := notPrivate(info); why != "" {
		return &foreignCacheError{dir, why}
	}
	return nil
}

// foreignCacheError says why a cache folder cannot be trusted.
type foreignCacheError struct{ dir, why string }

func (e *foreignCacheError) Error() string {
	return fmt.Sprintf("the cache folder %s %s; nothing was written to it", e.dir, e.why)
}

// Hint says what to do.
func (e *foreignCacheError) Hint() string {
	return "set HOME or XDG_CACHE_HOME to a folder of your own"
}
