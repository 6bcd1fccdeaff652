package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/snap-backup/snap/repo/backend"
)

// Create returns a new, empty store in the folder of c. It makes that folder, but not the
// folders above it: if one of these is missing, a disk of the server is probably not
// connected. If the folder exists, it must have no files other than those that operating
// systems create (".DS_Store", "lost+found"). Otherwise the error is backend.ErrExist, and
// nothing has changed.
func Create(ctx context.Context, c Config, opts Options) (*Backend, error) {
	b := newBackend(c, opts)
	err := b.do(ctx, "create", "", func(cn *conn) error { return b.create(cn) })
	if err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Backend) create(c *conn) error {
	errMake := c.client.Mkdir(b.config.Path)
	info, err := c.client.Stat(b.config.Path)
	switch {
	case err != nil && errors.Is(errMake, fs.ErrNotExist):
		return &advice{errMake, "the folder above it does not exist on the server; make it first, or connect its disk"}
	case err != nil && errMake != nil:
		return b.explain(c, errMake, 1)
	case err != nil:
		return err
	case !info.IsDir():
		return notFolder(info)
	}
	if errMake == nil {
		_ = c.client.Chmod(b.config.Path, 0o700)
		if info, err := c.client.Stat(b.config.Path); err == nil {
			c.shape = shapeOf(info)
		}
	}
	if err := b.mustBeEmpty(c); err != nil {
		return err
	}
	err = b.flushFolder(c, "..") // the entry of the folder itself
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	b.noFolderFlush.Store(false) // the folder above may belong to somebody else
	return err
}

func (b *Backend) mustBeEmpty(c *conn) error {
	entries, err := c.client.ReadDir(b.config.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if backend.IsSystemEntry(e.Name()) || e.Name() == tmpFolder && e.IsDir() {
			continue
		}
		file, err := b.firstFile(c, e.Name(), e)
		if err != nil {
			return err
		}
		if file != "" {
			return &advice{fmt.Errorf("the folder is not empty: it has %s: %w", file, backend.ErrExist), "choose a new or empty folder"}
		}
	}
	return nil
}

// firstFile returns the name of a file below e, or "" if there are only folders. An
// interrupted attempt to make a repository can leave empty folders.
func (b *Backend) firstFile(c *conn, name string, e fs.FileInfo) (string, error) {
	if !e.IsDir() {
		return name, nil
	}
	entries, err := c.client.ReadDir(b.path(name))
	if err != nil {
		return "", err
	}
	for _, below := range entries {
		file, err := b.firstFile(c, path.Join(name, below.Name()), below)
		if file != "" || err != nil {
			return file, err
		}
	}
	return "", nil
}
