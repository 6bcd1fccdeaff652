package cache

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// tagName marks the folder for programs that make backups: what is in it need not be
	// backed up. See https://bford.info/cachedir/.
	tagName = "CACHEDIR.TAG"
	tagText = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of snap. It can be deleted at any time.\n"
	// trimName is a file whose time tells when the caches were last trimmed.
	trimName  = "trimmed"
	trimEvery = time.Hour
	// leftover is the age from which an unfinished file counts as left by a crash.
	leftover = 24 * time.Hour
)

// prepare makes the folder of all caches and that of one repository.
func prepare(root, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tag := filepath.Join(root, tagName)
	if _, err := os.Lstat(tag); errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(tag, []byte(tagText), 0o600)
	}
	return nil
}

// Trim removes the files that were not used for the longest time until the caches of all
// repositories together have at most limit bytes. It looks at most once an hour.
func Trim(root string, limit int64) error {
	stamp := filepath.Join(root, trimName)
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()).Abs() < trimEvery {
		return nil
	}
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		return err
	}
	return trim(root, limit)
}

func trim(root string, limit int64) error {
	var files []file
	var total int64
	err := eachFile(root, func(f file) {
		total += f.size
		files = append(files, f)
	})
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.rel, b.rel)) })
	for _, f := range files {
		crashed := strings.HasPrefix(filepath.Base(f.rel), "new-") && time.Since(f.used) > leftover
		if total <= limit && !crashed {
			continue
		}
		if err := os.Remove(filepath.Join(root, f.rel)); err == nil || errors.Is(err, fs.ErrNotExist) {
			total -= f.size
		}
	}
	return nil
}

// file is a file of a cache.
type file struct {
	rel  string // its path below the folder of all caches
	size int64
	used time.Time
}

func eachFile(root string, fn func(file)) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isCache(e) {
			continue
		}
		_ = filepath.WalkDir(filepath.Join(root, e.Name()), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // another process may have removed it
			}
			info, err := d.Info()
			rel, bad := filepath.Rel(root, path)
			if err == nil && bad == nil {
				fn(file{rel, info.Size(), info.ModTime()})
			}
			return nil
		})
	}
	return nil
}

// isCache reports whether a folder is the cache of a repository, by its name.
func isCache(e fs.DirEntry) bool {
	return e.IsDir() && len(e.Name()) == 32 && strings.Trim(e.Name(), "0123456789abcdef") == ""
}
