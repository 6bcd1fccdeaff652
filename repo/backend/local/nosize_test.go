package local

import (
	"context"
	"crypto/rand"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
)

// sizelessDisk cannot describe the files whose names begin with "bad", as a disk with a
// damaged inode.
type sizelessDisk struct{ rootDisk }

func (d sizelessDisk) readDir(name string) ([]fs.DirEntry, error) {
	entries, err := d.rootDisk.readDir(name)
	for i, e := range entries {
		if strings.HasPrefix(e.Name(), "bad") {
			entries[i] = sizeless{e}
		}
	}
	return entries, err
}

type sizeless struct{ fs.DirEntry }

func (sizeless) Info() (fs.FileInfo, error) { return nil, syscall.EIO }

// TestListShowsFilesWithoutSize checks that a file that cannot be described hides no
// others.
func TestListShowsFilesWithoutSize(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := newRootDisk(root)
	b := newBackend(dir, sizelessDisk{d}, rand.Reader, d.close)
	t.Cleanup(func() { _ = b.Close() })
	for _, name := range []string{"index/a", "index/bad", "index/c"} {
		if err := b.Put(ctx, name, []byte("content")); err != nil {
			t.Fatal(err)
		}
	}
	var got []backend.Info
	err = b.List(ctx, "index/", func(f backend.Info) error { got = append(got, f); return nil })
	sizes := func(yield func(int64) bool) {
		for _, f := range got {
			if !yield(f.Size) {
				return
			}
		}
	}
	if err != nil || !slices.Equal(slices.Collect(sizes), []int64{7, 0, 7}) {
		t.Errorf("%+v, %v", got, err)
	}
}
