package materialize

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo/backend"
	"golang.org/x/sys/unix"
)

// A full disk is reported. Once there is room again, the next run continues.
func TestMaterializeOnFullDisk(t *testing.T) {
	be, s, want := stored(t)
	target := t.TempDir()
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small disk needs root: %v", err)
	}
	defer func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	}()
	_, err := Write(t.Context(), mustOpen(t, be, seed(2)), s, target, Options{})
	if _, ok := errors.AsType[*NoRoomError](err); !ok || !backend.IsNoSpace(err) {
		t.Fatalf("got %v", err)
	}
	if left, err := os.ReadDir(target); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_REMOUNT, "size=10m"); err != nil {
		t.Fatal(err)
	}
	full := &filling{Backend: be, target: target}
	_, err = Write(t.Context(), mustOpen(t, full, seed(2)), s, target, Options{})
	if left, ok := errors.AsType[*UnfinishedError](err); !ok || left.Dir != hidden(target, s) || left.Bytes == 0 || !backend.IsNoSpace(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(target, foldertest.UDID)); !os.IsNotExist(err) {
		t.Errorf("the folder exists: %v", err)
	}
	if err := os.Remove(filepath.Join(target, "filler")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	res, err := Write(t.Context(), mustOpen(t, be, seed(3)), s, target, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Kept == 0 {
		t.Error("nothing was kept")
	}
	wantFolder(t, target, want)
}

// filling is a store that fills the target's disk when the target has some files.
type filling struct {
	backend.Backend
	target string
	once   sync.Once
}

func (f *filling) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if files, _ := filepath.Glob(f.target + "/.*.partial/*/*"); len(files) > 0 {
		f.once.Do(func() { _ = os.WriteFile(filepath.Join(f.target, "filler"), make([]byte, 20<<20), 0o600) })
	}
	return f.Backend.ReadAt(ctx, name, p, off)
}

func TestMaterializeOnReadOnlyDisk(t *testing.T) {
	be, s, _ := stored(t)
	target := t.TempDir()
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_RDONLY, "size=1m"); err != nil {
		t.Skipf("mounting a read-only disk needs root: %v", err)
	}
	defer func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	}()
	if _, err := Write(t.Context(), mustOpen(t, be, seed(2)), s, target, Options{}); err == nil {
		t.Error("Write succeeded")
	}
}
