package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/repo/backend"
)

// Create returns a new, empty store in dir. It makes dir, but not the folders above
// it: if one of these is missing, a disk is probably not connected. If dir exists,
// it must have no files other than those that operating systems create
// (".DS_Store", "lost+found"). Otherwise the error is backend.ErrExist, and nothing
// has changed.
func Create(dir string) (*Backend, error) {
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failure("create", dir, "", err, hintCreate(err))
	}
	if err == nil {
		giveAway(dir)
	}
	b, err := Open(dir)
	if err != nil {
		return nil, err
	}
	if err := b.mustBeEmpty(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := syncParent(dir); err != nil {
		return nil, errors.Join(failure("create", dir, "flush folder above", err, hint(err)), b.Close())
	}
	return b, nil
}

func (b *Backend) mustBeEmpty() error {
	entries, err := b.disk.readDir(".")
	if err != nil {
		return b.opError("create", ".", "list", err)
	}
	for _, e := range entries {
		if backend.IsSystemEntry(e.Name()) || e.Name() == tmpFolder && e.IsDir() {
			continue
		}
		file, err := b.firstFile(e.Name(), e)
		if err != nil {
			return b.opError("create", e.Name(), "list", err)
		}
		if file != "" {
			return failure("create", b.dir, "the folder is not empty: it has "+filepath.FromSlash(file),
				backend.ErrExist, "choose a new or empty folder")
		}
	}
	return nil
}

// firstFile returns the name of a file below e, or "" if there are only folders. An
// interrupted attempt to make a repository can leave empty folders.
func (b *Backend) firstFile(name string, e fs.DirEntry) (string, error) {
	if !e.IsDir() {
		return name, nil
	}
	entries, err := b.disk.readDir(name)
	if err != nil {
		return "", err
	}
	for _, below := range entries {
		file, err := b.firstFile(name+"/"+below.Name(), below)
		if file != "" || err != nil {
			return file, err
		}
	}
	return "", nil
}
