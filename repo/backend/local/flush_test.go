package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// noFsyncDisk is a real disk on which a flush of a file fails.
type noFsyncDisk struct {
	unflushed
	err error
}

func (d noFsyncDisk) create(name string) (file, error) {
	f, err := d.unflushed.create(name)
	return noFsyncFile{f, d.err}, err
}

type noFsyncFile struct {
	file
	err error
}

func (f noFsyncFile) Sync() error { return &os.PathError{Op: "sync", Path: "x", Err: f.err} }

func TestAllowNoFsync(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.EIO, syscall.ENOSPC} {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d := newRootDisk(root)
		b := newBackend(root.Name(), noFsyncDisk{unflushed{d}, errno}, rand.Reader, d.close)
		defer b.Close()
		unsupported := errno != syscall.EIO && errno != syscall.ENOSPC
		if err := b.Put(ctx, "a", nil); !errors.Is(err, errno) || errors.Is(err, ErrNoFsync) != unsupported {
			t.Errorf("%v: Put = %v", errno, err)
		}
		b.AllowNoFsync()
		if err := b.Put(ctx, "a", nil); (err == nil) != unsupported {
			t.Errorf("%v: with AllowNoFsync Put = %v", errno, err)
		}
		if left, err := d.readDir(tmpFolder); err != nil || len(left) > 0 {
			t.Errorf("%v: tmp has %v, %v", errno, left, err)
		}
	}
}

// Whoever makes many folders does not fill the memory.
func TestKnownFoldersAreBounded(t *testing.T) {
	var d flushedFolders
	for i := range 3*maxKnown + 1 {
		name := fmt.Sprint(i)
		if d.add(name); !d.known[name] || len(d.known) > maxKnown {
			t.Fatalf("%d folders are known, the last one: %v", len(d.known), d.known[name])
		}
	}
}
