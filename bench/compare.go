package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// content is what a restore must create at a path: a folder, or a file with these
// bytes.
type content struct {
	dir  bool
	size int64
	sum  [sha256.Size]byte
}

// contents maps each path of a backup folder, slash-separated, to the content there.
type contents map[string]content

// bytes returns the total size and the number of files.
func (c contents) bytes() (total int64, files int) {
	for _, f := range c {
		if !f.dir {
			total += f.size
			files++
		}
	}
	return total, files
}

// readContents reads all files of a folder. Anything but regular files and folders is an
// error, since generated backups have none.
func readContents(dir string) (contents, error) {
	c := contents{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		item := content{dir: e.IsDir()}
		switch {
		case item.dir:
		case e.Type().IsRegular():
			if item.size, item.sum, err = sumFile(path); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither file nor folder", rel)
		}
		c[filepath.ToSlash(rel)] = item
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return c, nil
}

func sumFile(path string) (size int64, sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, sum, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return size, sum, err
}

// compare returns an error that names a path at which got differs, or nil if both are
// equal.
func (c contents) compare(got contents) error {
	for path, want := range c {
		have, ok := got[path]
		switch {
		case !ok:
			return fmt.Errorf("%s is missing", path)
		case have.dir != want.dir:
			return fmt.Errorf("%s: a file was restored as a folder, or a folder as a file", path)
		case have.size != want.size:
			return fmt.Errorf("%s has %d bytes, want %d", path, have.size, want.size)
		case have != want:
			return fmt.Errorf("%s has other bytes", path)
		}
	}
	for path := range got {
		if _, ok := c[path]; !ok {
			return fmt.Errorf("%s should not exist", path)
		}
	}
	return nil
}
