package sftp

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/snap-backup/snap/repo/backend"
)

func TestFullDisk(t *testing.T) {
	server := opensshServer(t)
	disk := t.TempDir()
	switch err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); {
	case errors.Is(err, os.ErrPermission):
		t.Skip("only root may mount a small disk")
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	c := Config{Host: "nas", Path: disk + "/repository"}
	b := create(t, c, Options{Command: server})
	put(t, b, "packs/ab/1", "small")
	if err := b.Put(t.Context(), "packs/ab/2", make([]byte, 2<<20)); !backend.IsNoSpace(err) {
		t.Errorf("Put on a full disk = %v", err)
	}
	if free, err := b.Free(t.Context()); err != nil || free > 1<<20 || free < 1<<19 {
		t.Errorf("%d bytes are free, %v: the failed Put is still there", free, err)
	}
	put(t, b, "packs/ab/2", "small")
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "packs/ab/3", nil); !backend.IsReadOnly(err) || backend.IsNoSpace(err) {
		t.Errorf("Put on a read-only disk = %v", err)
	}
	if err := b.Delete(t.Context(), "packs/ab/2"); !backend.IsReadOnly(err) {
		t.Errorf("Delete on a read-only disk = %v", err)
	}
}
