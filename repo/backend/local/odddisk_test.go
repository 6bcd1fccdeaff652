package local

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
)

// oddDisk is a real disk with the oddities of exFAT drives and SMB shares: no hard
// links, no permissions, folders that cannot be flushed, times with a resolution of
// two seconds, a rename that does not overwrite, and names that ignore case.
type oddDisk struct{ unflushed }

func (oddDisk) link(string, string) error { return syscall.EOPNOTSUPP }

func (d oddDisk) create(name string) (file, error) {
	if _, err := d.lstat(name); err == nil {
		return nil, syscall.EEXIST
	}
	return d.unflushed.create(name)
}

func (d oddDisk) rename(from, to string) error {
	if _, err := d.lstat(to); err == nil {
		return syscall.EACCES
	}
	return d.rootDisk.rename(from, to)
}

func (d oddDisk) lstat(name string) (fs.FileInfo, error) {
	info, err := d.rootDisk.lstat(name)
	if err == nil {
		return oddInfo{info}, nil
	}
	entries, derr := d.rootDisk.readDir(path.Dir(name))
	if derr != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), path.Base(name)) {
			if info, err := e.Info(); err == nil {
				return oddInfo{info}, nil
			}
		}
	}
	return nil, err
}

// sameInfo always reports false, since such a disk invents inode numbers.
func (oddDisk) sameInfo(x, y fs.FileInfo) bool { return false }

type oddInfo struct{ fs.FileInfo }

func (i oddInfo) ModTime() time.Time { return i.FileInfo.ModTime().Truncate(2 * time.Second) }
func (i oddInfo) Mode() fs.FileMode  { return i.FileInfo.Mode() | 0o777 }

func TestContractOnAnOddDisk(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		d := newRootDisk(root)
		b := newBackend(dir, oddDisk{unflushed{d}}, rand.Reader, d.close)
		t.Cleanup(func() { _ = b.Close() })
		return b
	})
}
