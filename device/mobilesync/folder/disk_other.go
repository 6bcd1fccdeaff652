//go:build !unix

package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// disk opens files below one directory. os.Root keeps every access inside that
// directory. Links that stay inside are refused by a check of each component.
type disk struct {
	root *os.Root
	path string
}

func openDisk(path string) (*disk, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &disk{root, path}, nil
}

// Close implements Source.
func (d *disk) Close() error { return d.root.Close() }

// checkNoLinks returns an error if a component of path, other than the last, is
// not a directory. Links, junctions and other reparse points are not directories.
func (d *disk) checkNoLinks(path string) error {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		info, err := d.root.Lstat(filepath.FromSlash(path[:i]))
		if err != nil {
			return err
		}
		if info.Mode().Type() != fs.ModeDir {
			return ErrLink
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return fs.ErrInvalid
		}
	}
	return nil
}

// openFile opens a regular file for reading.
func (d *disk) openFile(path string) (*os.File, Stat, error) {
	before, err := d.lstatInfo(path)
	if err != nil {
		return nil, Stat{}, pathError("open", d.join(path), err)
	}
	if before.Mode()&fs.ModeSymlink != 0 {
		return nil, Stat{}, pathError("open", d.join(path), ErrLink)
	}
	if !before.Mode().IsRegular() {
		return nil, Stat{}, pathError("open", d.join(path), ErrNotRegular)
	}
	file, err := d.root.Open(filepath.FromSlash(path))
	if err != nil {
		return nil, Stat{}, err
	}
	after, err := file.Stat()
	if err == nil && (!after.Mode().IsRegular() || !os.SameFile(before, after)) {
		err = ErrNotRegular
	}
	if err != nil {
		file.Close()
		return nil, Stat{}, pathError("open", d.join(path), err)
	}
	return file, fromInfo(after), nil
}

func (d *disk) lstatInfo(path string) (fs.FileInfo, error) {
	if err := d.checkNoLinks(path); err != nil {
		return nil, err
	}
	return d.root.Lstat(filepath.FromSlash(path))
}

// Lstat implements Source.
func (d *disk) Lstat(path string) (Stat, error) {
	info, err := d.lstatInfo(path)
	if err != nil {
		return Stat{}, pathError("lstat", d.join(path), err)
	}
	return fromInfo(info), nil
}

// List implements Source.
func (d *disk) List(path string) ([]Entry, error) {
	name := "."
	if path != "" {
		info, err := d.lstatInfo(path)
		if err == nil && info.Mode().Type() != fs.ModeDir {
			err = ErrLink
		}
		if err != nil {
			return nil, pathError("open", d.join(path), err)
		}
		name = filepath.FromSlash(path)
	}
	dir, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// On Windows the listing has size and times, so Info needs no system call.
	found, err := dir.ReadDir(-1)
	entries := make([]Entry, len(found))
	for i, d := range found {
		entries[i].Name = d.Name()
		switch info, err := d.Info(); {
		case errors.Is(err, fs.ErrNotExist):
			entries[i].Gone = true
		case err != nil:
			entries[i].Err = err
		default:
			entries[i].Stat = fromInfo(info)
		}
	}
	return entries, err
}

func (d *disk) join(path string) string { return filepath.Join(d.path, filepath.FromSlash(path)) }

func fromInfo(info fs.FileInfo) Stat {
	return Stat{Mode: info.Mode(), Size: info.Size(), ModTime: modTime(info)}
}
