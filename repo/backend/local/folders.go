package local

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
)

var _ backend.Folders = (*Backend)(nil)

// MakeFolder implements [backend.Folders].
func (b *Backend) MakeFolder(ctx context.Context, dir string) error {
	if err := b.checkCall(ctx, "create", strings.TrimSuffix(dir, "/")); err != nil {
		return err
	}
	return b.ensureFolder(dir)
}

// HasFolder implements [backend.Folders].
func (b *Backend) HasFolder(ctx context.Context, dir string) (bool, error) {
	name := strings.TrimSuffix(dir, "/")
	if err := b.checkCall(ctx, "stat", name); err != nil {
		return false, err
	}
	info, err := b.disk.lstat(name)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, b.opError("stat", name, "", err)
	}
	if !info.IsDir() {
		return false, b.notFolder("stat", name, info.Mode())
	}
	return true, nil
}

// MoveAside implements [backend.Folders]. The other name is that of no file of a
// repository.
func (b *Backend) MoveAside(ctx context.Context, name string) (string, error) {
	if err := b.checkCall(ctx, "move", name); err != nil {
		return "", err
	}
	info, err := b.disk.lstat(name)
	if isMissing(err) || err == nil && info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", b.opError("move", name, "", err)
	}
	for n := 1; n <= maxAside; n++ {
		aside := fmt.Sprintf("%s.aside-%d", name, n)
		if _, err := b.disk.lstat(aside); !isMissing(err) {
			continue
		}
		if err := b.disk.rename(name, aside); err != nil {
			return "", b.opError("move", name, "rename", err)
		}
		if err := b.disk.syncDir(path.Dir(name)); err != nil {
			return aside, b.opError("move", name, "flush folder", err)
		}
		return aside, nil
	}
	return "", b.opError("move", name, "", errManyAside)
}

// maxAside is how many things of one name can be moved aside.
const maxAside = 100

var errManyAside = errors.New("too many things of this name were moved aside")
