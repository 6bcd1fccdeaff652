package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/pkg/sftp"

	"github.com/snap-backup/snap/repo/backend"
)

// knownFolders are the folders whose entries this process has flushed, so that it flushes
// them only once.
type knownFolders struct {
	mu     sync.Mutex
	known  map[string]bool
	listed map[string]bool // folders whose subfolders are known
}

func (k *knownFolders) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known, k.listed = nil, nil
}

func (k *knownFolders) add(folder string) {
	if k.known == nil {
		k.known = make(map[string]bool)
	}
	k.known[folder] = true
}

// ensureFolder makes the folder of a file, if necessary, and flushes the entries of this
// folder and of all folders above it.
func (b *Backend) ensureFolder(c *conn, name string) error {
	b.folders.mu.Lock()
	defer b.folders.mu.Unlock()
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if err := b.ensureOne(c, name[:i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) ensureOne(c *conn, folder string) error {
	parent := path.Dir(folder)
	if err := b.learnFolders(c, parent); err != nil {
		return err
	}
	if b.folders.known[folder] {
		return nil
	}
	if err := b.mkdir(c, folder); err != nil {
		info, errStat := c.client.Lstat(b.path(folder))
		if errStat != nil {
			return b.explain(c, fmt.Errorf("make folder %s: %w", folder, err), 1)
		}
		if !info.IsDir() {
			return notFolder(info)
		}
	}
	// Flush even if the folder existed: another process may have made it and been
	// killed before flushing it.
	if err := b.flushFolder(c, parent); err != nil {
		return err
	}
	b.folders.add(folder)
	return nil
}

// learnFolders finds out which folders exist in a folder and flushes their entries, all
// at once: a repository has 256 folders of packs, and asking for each of them takes
// hundreds of round trips.
func (b *Backend) learnFolders(c *conn, parent string) error {
	if b.folders.listed[parent] {
		return nil
	}
	entries, err := c.client.ReadDir(b.path(parent))
	if err == nil {
		err = b.flushFolder(c, parent)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			b.folders.add(path.Join(parent, e.Name()))
		}
	}
	if b.folders.listed == nil {
		b.folders.listed = make(map[string]bool)
	}
	b.folders.listed[parent] = true
	return nil
}

// mkdir makes a folder with the group and permissions of the repository's folder.
func (b *Backend) mkdir(c *conn, folder string) error {
	path := b.path(folder)
	if err := c.client.Mkdir(path); err != nil {
		return err
	}
	// File systems without modes and owners refuse all of this.
	_ = c.client.Chmod(path, 0o700)
	if !c.shape.isShared() {
		return nil
	}
	info, err := c.client.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*sftp.FileStat)
	if ok && (stat.GID == c.shape.gid || c.client.Chown(path, int(stat.UID), int(c.shape.gid)) == nil) {
		_ = c.client.Chmod(path, c.shape.folderMode())
	}
	return nil
}

// notFolder returns the error for something that is not a folder and has the name of one.
func notFolder(info fs.FileInfo) error {
	what := "a file"
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		what = "a link, and links are not followed"
	case !mode.IsRegular():
		what = "a pipe, a socket or a device"
	}
	return fmt.Errorf("%w, but %s", backend.ErrNotFolder, what)
}

// MakeFolder implements [backend.Folders].
func (b *Backend) MakeFolder(ctx context.Context, dir string) error {
	name := strings.TrimSuffix(dir, "/")
	if err := b.check(ctx, "create", name); err != nil {
		return err
	}
	return b.do(ctx, "create", name, func(c *conn) error { return b.ensureFolder(c, name+"/") })
}

// HasFolder implements [backend.Folders].
func (b *Backend) HasFolder(ctx context.Context, dir string) (bool, error) {
	name := strings.TrimSuffix(dir, "/")
	if err := b.check(ctx, "stat", name); err != nil {
		return false, err
	}
	has := false
	err := b.do(ctx, "stat", name, func(c *conn) error {
		info, err := c.client.Lstat(b.path(name))
		switch {
		case b.isMissing(c, name, err):
			return nil
		case err != nil:
			return err
		case !info.IsDir():
			return notFolder(info)
		}
		has = true
		return nil
	})
	return has, err
}

// MoveAside implements [backend.Folders]. The other name is that of no file of a
// repository.
func (b *Backend) MoveAside(ctx context.Context, name string) (aside string, err error) {
	if err := b.check(ctx, "move", name); err != nil {
		return "", err
	}
	err = b.do(ctx, "move", name, func(c *conn) error {
		aside, err = b.moveAside(c, name)
		return err
	})
	return aside, err
}

func (b *Backend) moveAside(c *conn, name string) (string, error) {
	info, err := c.client.Lstat(b.path(name))
	if b.isMissing(c, name, err) || err == nil && info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b.renameMu.Lock()
	defer b.renameMu.Unlock()
	for n := 1; n <= maxAside; n++ {
		aside := fmt.Sprintf("%s.aside-%d", name, n)
		if _, err := c.client.Lstat(b.path(aside)); !errors.Is(err, fs.ErrNotExist) {
			if c.broken() {
				return "", err
			}
			continue
		}
		if err := c.client.Rename(b.path(name), b.path(aside)); err != nil {
			return "", fmt.Errorf("rename: %w", err)
		}
		b.folders.forget()
		return aside, b.flushFolder(c, path.Dir(name))
	}
	return "", errManyAside
}

// maxAside is how many things of one name can be moved aside.
const maxAside = 100

var errManyAside = errors.New("too many things of this name were moved aside")
