package local

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	return b.stat(ctx, "stat", name)
}

func (b *Backend) stat(ctx context.Context, op, name string) (backend.Info, error) {
	if err := b.allowed(ctx, op, name); err != nil {
		return backend.Info{}, err
	}
	info, err := b.disk.lstat(name)
	switch {
	case err == nil && info.Mode().IsRegular():
		return backend.Info{Name: name, Size: info.Size()}, nil
	case err == nil:
		return backend.Info{}, b.fail(op, name, errNotRegular.Error(), backend.ErrNotExist)
	case isMissing(err):
		return backend.Info{}, b.fail(op, name, "", backend.ErrNotExist)
	}
	return backend.Info{}, b.fail(op, name, "", err)
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := b.allowed(ctx, "read", name); err != nil {
		return 0, err
	}
	f, err := b.disk.open(name)
	switch {
	case errors.Is(err, errNotRegular):
		return 0, b.fail("read", name, errNotRegular.Error(), backend.ErrNotExist)
	case isMissing(err):
		return 0, b.fail("read", name, "", backend.ErrNotExist)
	case err != nil:
		return 0, b.fail("read", name, "open", err)
	}
	defer f.Close()
	switch {
	case off < 0:
		return 0, b.fail("read", name, "", errNegativeOffset)
	case len(p) == 0:
		return 0, nil
	case off >= f.Size():
		return 0, io.EOF
	}
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, b.fail("read", name, "", err)
}

var errNegativeOffset = errors.New("negative offset")

// List implements [backend.Backend]. In memory, it keeps only the entries of the
// folders above the current file.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := backend.ValidPrefix(prefix); err != nil {
		return failure("list", b.dir, "", err, "")
	}
	if err := ctx.Err(); err != nil {
		return b.fail("list", prefix, "", err)
	}
	folder := cmp.Or(strings.TrimSuffix(prefix, "/"), ".")
	info, err := b.disk.lstat(folder)
	switch {
	case isMissing(err):
		return nil
	case err != nil:
		return b.fail("list", prefix, "", err)
	case info.Mode().IsRegular():
		return nil // no files are below a file
	case !info.IsDir():
		return b.fail("list", prefix, "", errNotFolder)
	}
	return b.list(ctx, prefix, fn)
}

// list calls fn for all files below a folder. prefix is the folder with a slash at its
// end, or "" for all files.
func (b *Backend) list(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	entries, err := b.disk.readDir(cmp.Or(strings.TrimSuffix(prefix, "/"), "."))
	if isMissing(err) {
		return nil // removed since its entry was read
	}
	if err != nil {
		return b.fail("list", prefix, "", err)
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return cmp.Compare(sortKey(x), sortKey(y)) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return b.fail("list", prefix, "", err)
		}
		name := prefix + e.Name()
		if backend.ValidName(name) != nil {
			continue
		}
		switch {
		case e.IsDir():
			err = b.list(ctx, name+"/", fn)
		case e.Type().IsRegular():
			err = b.show(name, e, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) show(name string, e fs.DirEntry, fn func(backend.Info) error) error {
	info, err := e.Info()
	if isMissing(err) {
		return nil // removed since its entry was read
	}
	if err != nil {
		return b.fail("list", name, "", err)
	}
	return fn(backend.Info{Name: name, Size: info.Size()})
}

// sortKey returns a key by which entries are sorted in the order of the full names of
// files: a folder "a" sorts as "a/", which is after "a-b" and "a.b".
func sortKey(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
