package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// caseless is like some shares: names that differ only in case mean the same file, and
// List shows them in capitals.
type caseless struct{ backend.Backend }

func (c caseless) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return c.Backend.List(ctx, strings.ToLower(prefix), func(f backend.Info) error {
		if strings.HasPrefix(f.Name, repotest.SnapshotsDir) {
			// A List must leave out names that are not valid.
			f.Name = strings.ToUpper(f.Name)
			if backend.ValidName(f.Name) == nil {
				return errors.New("a name in capitals is valid")
			}
			return nil
		}
		return fn(f)
	})
}

func (c caseless) Put(ctx context.Context, name string, b []byte) error {
	return c.Backend.Put(ctx, strings.ToLower(name), b)
}

// A share that changes the case of names hides files from List. A mirror run then
// copies these files again and removes nothing.
func TestMirrorToACaselessStore(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1, 2), memory.New()
	for range 2 {
		if err := mirrorTo(source, caseless{target}, oneAtATime); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(sameRepository(t, source, target), repotest.Verify(target, 1, 2)); err != nil {
		t.Error(err)
	}
}

func TestMirrorToAFullDisk(t *testing.T) {
	t.Parallel()
	source, older := outdatedMirror(t)
	run := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
	sizes, err := repotest.PutSizes(older, run)
	if err != nil || len(sizes) < 5 {
		t.Fatal(sizes, err)
	}
	room := 0
	for _, size := range sizes {
		be := older.Clone()
		if err := run(fault.New(be, fault.Full(int64(room+size-1)))); !backend.IsNoSpace(err) {
			t.Errorf("room for %d bytes: %v", room+size-1, err)
		}
		if err := verifyMirror(be); err != nil {
			t.Errorf("room for %d bytes: %v", room+size-1, err)
		}
		room += size
	}
}

// The file systems of common drives. This needs root and a kernel that supports
// the file system; Linux always has tmpfs.
func TestMirrorToRealDrives(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("mounting needs root on Linux")
	}
	source, _ := outdatedMirror(t)
	for _, kind := range []string{"vfat", "exfat", "ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			mount := mountDrive(t, kind)
			be, err := local.Create(filepath.Join(mount, "phones"))
			if err != nil {
				t.Fatal(err)
			}
			defer be.Close()
			// The drive is disconnected during a run and connected again.
			for _, n := range []int{3, 12, 20} {
				if err := mirrorTo(source, fault.New(be, fault.From(n, fault.ErrInjected)), oneAtATime); !errors.Is(err, fault.ErrInjected) {
					t.Fatalf("pulled out at %d: %v", n, err)
				}
			}
			rep, err := mirror.Run(context.Background(), source, be, mirror.Options{})
			if err != nil || rep.CopiedFiles == 0 {
				t.Fatalf("%+v, %v", rep, err)
			}
			if err := errors.Join(sameRepository(t, source, be), repotest.Verify(be, 2, 3, 4)); err != nil {
				t.Error(err)
			}
			check, err := mirror.Check(context.Background(), source, be, mirror.Options{})
			if err != nil || !check.Clean() || !check.Same() {
				t.Errorf("%+v, %v", check, err)
			}
		})
	}
}

// mountDrive mounts an empty file system of a kind, or skips the test.
func mountDrive(t *testing.T, kind string) string {
	t.Helper()
	run := func(name string, args ...string) {
		var out bytes.Buffer
		c := exec.Command(name, args...)
		c.Stdout, c.Stderr = &out, &out
		if err := c.Run(); err != nil {
			t.Skipf("%s: %v: %s", name, err, strings.TrimSpace(out.String()))
		}
	}
	dir := t.TempDir()
	mount, image := filepath.Join(dir, "mount"), filepath.Join(dir, "image")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if kind == "tmpfs" {
		run("mount", "-t", "tmpfs", "-o", "size=32m", "none", mount)
	} else {
		if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 48<<20)); err != nil {
			t.Fatal(err)
		}
		run("mkfs."+kind, image)
		run("mount", "-o", "loop", image, mount)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", mount).Run(); err != nil {
			t.Error(err)
		}
	})
	return mount
}
