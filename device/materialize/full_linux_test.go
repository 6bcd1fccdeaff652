package materialize

import (
	"os"
	"path/filepath"
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
	_, err := Write(t.Context(), mustOpen(t, be, 2), s, target, Options{})
	if !backend.IsNoSpace(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(target, foldertest.UDID)); !os.IsNotExist(err) {
		t.Errorf("the folder exists: %v", err)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	res, err := Write(t.Context(), mustOpen(t, be, 3), s, target, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Kept == 0 {
		t.Error("nothing was kept")
	}
	wantFolder(t, target, want)
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
	if _, err := Write(t.Context(), mustOpen(t, be, 2), s, target, Options{}); err == nil {
		t.Error("it was written")
	}
}
