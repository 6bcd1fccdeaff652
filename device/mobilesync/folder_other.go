//go:build !unix

package mobilesync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// folder opens things below one directory. os.Root keeps every access inside
// it; links that stay inside are refused by looking at each component first.
type folder struct {
	root *os.Root
	path string
}

func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &folder{root, path}, nil
}

func (f *folder) Close() error { return f.root.Close() }

// plain refuses a path of which a component before the last is anything but a
// directory: links, junctions and other reparse points.
func (f *folder) plain(path string) error {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		info, err := f.root.Lstat(filepath.FromSlash(path[:i]))
		if err != nil {
			return err
		}
		if info.Mode().Type() != fs.ModeDir {
			return errLink
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return fs.ErrInvalid
		}
	}
	return nil
}

// open opens a regular file for reading.
func (f *folder) open(path string) (*os.File, stat, error) {
	before, err := f.lstatInfo(path)
	if err != nil {
		return nil, stat{}, pathError("open", f.join(path), err)
	}
	if before.Mode()&fs.ModeSymlink != 0 {
		return nil, stat{}, pathError("open", f.join(path), errLink)
	}
	if !before.Mode().IsRegular() {
		return nil, stat{}, pathError("open", f.join(path), errNotRegular)
	}
	file, err := f.root.Open(filepath.FromSlash(path))
	if err != nil {
		return nil, stat{}, err
	}
	after, err := file.Stat()
	if err == nil && (!after.Mode().IsRegular() || !os.SameFile(before, after)) {
		err = errNotRegular
	}
	if err != nil {
		file.Close()
		return nil, stat{}, pathError("open", f.join(path), err)
	}
	return file, fromInfo(after), nil
}

func (f *folder) lstatInfo(path string) (fs.FileInfo, error) {
	if err := f.plain(path); err != nil {
		return nil, err
	}
	return f.root.Lstat(filepath.FromSlash(path))
}

func (f *folder) lstat(path string) (stat, error) {
	info, err := f.lstatInfo(path)
	if err != nil {
		return stat{}, pathError("lstat", f.join(path), err)
	}
	return fromInfo(info), nil
}

// list returns the entries of a directory, in no order; "" is the folder itself.
func (f *folder) list(path string) ([]entry, error) {
	name := "."
	if path != "" {
		info, err := f.lstatInfo(path)
		if err == nil && info.Mode().Type() != fs.ModeDir {
			err = errLink
		}
		if err != nil {
			return nil, pathError("open", f.join(path), err)
		}
		name = filepath.FromSlash(path)
	}
	dir, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// On Windows the listing carries size and times, so Info asks nobody.
	found, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(found))
	for i, d := range found {
		entries[i].name = d.Name()
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			entries[i].gone = true
			continue
		}
		if err != nil {
			return nil, err
		}
		entries[i].stat = fromInfo(info)
	}
	return entries, nil
}

func (f *folder) join(path string) string { return filepath.Join(f.path, filepath.FromSlash(path)) }

func fromInfo(info fs.FileInfo) stat {
	return stat{mode: info.Mode(), size: info.Size(), modTime: info.ModTime().UnixNano()}
}
