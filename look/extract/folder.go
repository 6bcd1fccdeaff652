package extract

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/look"
)

// CheckFolder returns ErrTargetExists unless a folder is empty or does not exist.
func CheckFolder(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Lstat(dir) // a link that leads to nothing
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("%s: %w", dir, ErrTargetExists)
	}
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("%s: %w, and is not empty", dir, ErrTargetExists)
	}
	return err
}

// Folder writes files to a folder, which must be empty or missing. After an error or an
// interruption the folder has the files that are complete.
func Folder(ctx context.Context, items []Item, dir string, p *blob.Progress) (*Result, error) {
	if err := CheckFolder(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// The name is random, since a file of the device could have any name.
	f := &folder{root: root, partial: ".snap-" + rand.Text()}
	res, err := write(ctx, items, f, p)
	if res != nil {
		res.OtherTimes = f.otherTimes
	}
	return res, err
}

// folder is a sink that writes files. A file gets its name when it is complete.
type folder struct {
	root       *os.Root
	partial    string
	otherTimes int64
}

func (f *folder) put(it *Item, c *look.Content) error {
	err := f.fill(it, c)
	if err == nil {
		err = f.name(filepath.FromSlash(it.Target))
	}
	if err != nil {
		_ = f.root.Remove(f.partial) // the error says more than this one
	}
	return err
}

// fill writes the partial file.
func (f *folder) fill(it *Item, c *look.Content) error {
	file, err := f.root.OpenFile(f.partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyTo(file, c)
	if cerr := filesystem.Close(file); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	t := timeOf(it)
	err = filesystem.Retry(func() error { return f.root.Chtimes(f.partial, t, t) })
	if err != nil && filesystem.IsRefused(err) {
		f.otherTimes++
		return nil
	}
	return err
}

// name gives the partial file its name. It never replaces a file.
func (f *folder) name(path string) error {
	if err := f.root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if _, err := f.root.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w; this file system treats different names as one", path, ErrTargetExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.root.Rename(f.partial, path)
}
