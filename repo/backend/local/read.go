package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	if err := b.checkCall(ctx, op, name); err != nil {
		return backend.Info{}, err
	}
	info, err := b.disk.lstat(name)
	switch {
	case err == nil && info.Mode().IsRegular():
		return backend.Info{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
	case err == nil:
		return backend.Info{}, b.notRegular(op, name)
	case isMissing(err):
		return backend.Info{}, b.opError(op, name, "", backend.ErrNotExist)
	}
	return backend.Info{}, b.opError(op, name, "", err)
}

// notRegular returns the error for a name that something other than a regular file has. If
// the name is a hash, a file of the repository was there, and its loss must be noticed.
// Otherwise there is no file of this name.
func (b *Backend) notRegular(op, name string) error {
	if backend.IsHashed(name) {
		return failure(op, b.path(name), "", backend.ErrNotRegular, "move it away; a file of the repository had this name")
	}
	return b.opError(op, name, "", fmt.Errorf("%w: %w", backend.ErrNotRegular, backend.ErrNotExist))
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := b.checkCall(ctx, "read", name); err != nil {
		return 0, err
	}
	f, err := b.disk.open(name)
	switch {
	case errors.Is(err, backend.ErrNotRegular):
		return 0, b.notRegular("read", name)
	case isMissing(err):
		return 0, b.opError("read", name, "", backend.ErrNotExist)
	case err != nil:
		return 0, b.opError("read", name, "open", err)
	}
	defer f.Close()
	switch {
	case off < 0:
		return 0, b.opError("read", name, "", errNegativeOffset)
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
	return n, b.opError("read", name, "", err)
}

var errNegativeOffset = errors.New("negative offset")

// List implements [backend.Backend]. In memory, it keeps only the entries of the
// folders above the current file.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := backend.ValidPrefix(prefix); err != nil {
		return failure("list", b.dir, "", err, "")
	}
	if err := ctx.Err(); err != nil {
		return b.opError("list", prefix, "", err)
	}
	folder := cmp.Or(strings.TrimSuffix(prefix, "/"), ".")
	info, err := b.disk.lstat(folder)
	switch {
	case isMissing(err):
		return nil
	case err != nil:
		return b.opError("list", prefix, "", err)
	case !info.IsDir():
		return b.notFolder("list", folder, info.Mode())
	}
	return b.list(ctx, prefix, nil, fn)
}

// ListRange implements [backend.RangeLister]. It does not read folders in which no name of the
// range can be.
func (b *Backend) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	if err := ctx.Err(); err != nil {
		return b.opError("list", after, "", err)
	}
	// "0" is the byte after "/": all names in a folder are before the folder's name with it.
	skip := func(folder string) bool { return folder+"0" <= after || before != "" && folder+"/" >= before }
	return b.list(ctx, "", skip, func(f backend.Info) error {
		if f.Name <= after || before != "" && f.Name >= before {
			return nil
		}
		return fn(f)
	})
}

// notFolder returns the error for something that is not a folder and has the name of one.
func (b *Backend) notFolder(op, name string, mode fs.FileMode) error {
	what := "a file"
	switch {
	case mode&fs.ModeSymlink != 0:
		what = "a link, and links are not followed"
	case !mode.IsRegular():
		what = "a pipe, a socket or a device"
	}
	return failure(op, b.path(name), "", fmt.Errorf("%w, but %s", backend.ErrNotFolder, what), "move it away, and put the folder back in its place")
}

// list calls fn for all files below a folder. prefix is the folder with a slash at its
// end, or "" for all files. It leaves out the folders for which skip, if not nil, is true.
func (b *Backend) list(ctx context.Context, prefix string, skip func(folder string) bool, fn func(backend.Info) error) error {
	entries, err := b.disk.readDir(cmp.Or(strings.TrimSuffix(prefix, "/"), "."))
	if isMissing(err) {
		return nil // removed since its entry was read
	}
	if err != nil {
		return b.opError("list", prefix, "", err)
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return cmp.Compare(sortKey(x), sortKey(y)) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return b.opError("list", prefix, "", err)
		}
		name := prefix + e.Name()
		if backend.ValidName(name) != nil {
			continue
		}
		switch {
		case backend.IsHashed(name) && !e.Type().IsRegular():
			err = fn(backend.Info{Name: name}) // reading it returns the reason
		case e.IsDir() && skip != nil && skip(name):
		case e.IsDir():
			err = b.list(ctx, name+"/", skip, fn)
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
		// The directory has the name, but the file cannot be described: reading it
		// returns the reason.
		return fn(backend.Info{Name: name})
	}
	return fn(backend.Info{Name: name, Size: info.Size(), Modified: info.ModTime()})
}

// sortKey returns a key by which entries are sorted in the order of the full names of
// files: a folder "a" sorts as "a/", which is after "a-b" and "a.b".
func sortKey(e fs.DirEntry) string {
	if e.IsDir() && !backend.IsHashed(e.Name()) {
		return e.Name() + "/"
	}
	return e.Name()
}
