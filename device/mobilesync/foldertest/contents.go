package foldertest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Contents describe everything below a folder, by path: type, mode, mtime,
// size and content. All modes include the owner's permission to read and
// write, because materializing a snapshot adds this permission.
type Contents map[string]string

// MustRead returns the contents of a folder.
func MustRead(t testing.TB, dir string) Contents {
	t.Helper()
	p, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Read is like MustRead but returns an error.
func Read(dir string) (Contents, error) {
	p := Contents{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(dir, path)
		p[filepath.ToSlash(rel)] = Describe(info.Mode(), info.ModTime().UnixNano(), content)
		return err
	})
	return p, err
}

// Describe returns how Contents describe a file or folder.
func Describe(mode fs.FileMode, mtime int64, content []byte) string {
	if mode.IsDir() {
		return fmt.Sprintf("%v mtime %d", mode|0o700, mtime)
	}
	return fmt.Sprintf("%v mtime %d, %d bytes %x", mode|0o600, mtime, len(content), sha256.Sum256(content))
}

// Diff returns an error that names up to five differences.
func (p Contents) Diff(got Contents) error {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(p)) {
		if g, ok := got[path]; !ok {
			out = append(out, path+" is missing")
		} else if g != p[path] {
			out = append(out, fmt.Sprintf("%s is %s, want %s", path, g, p[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := p[path]; !ok {
			out = append(out, path+" should not exist")
		}
	}
	if len(out) == 0 {
		return nil
	}
	return fmt.Errorf("%d differences: %s", len(out), strings.Join(out[:min(5, len(out))], "; "))
}
