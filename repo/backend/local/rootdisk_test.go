package local

import (
	"crypto/rand"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
)

// Without the direct way of opening files everything works just the same.
func TestContractTheLongWay(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		b := newBackend(root.Name(), rootDisk{root: root}, rand.Reader, root.Close)
		t.Cleanup(func() { _ = b.Close() })
		return b
	})
}

// linkless is a real disk without hard links.
type linkless struct{ rootDisk }

func (linkless) link(_, _ string) error { return syscall.EPERM }

func TestContractWithoutLinks(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d := newRootDisk(root)
		b := newBackend(root.Name(), linkless{d}, rand.Reader, d.close)
		t.Cleanup(func() {
			if tmp, err := d.readDir(tmpFolder); err == nil && len(tmp) > 0 {
				t.Errorf("in tmp are %v", tmp)
			}
			_ = b.Close()
		})
		return b
	})
}

func TestOpenKinds(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	direct := newRootDisk(root)
	defer direct.close()
	if err := root.WriteFile("file", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := root.Mkdir("folder", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := root.Symlink("file", "link"); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	for about, d := range map[string]rootDisk{"direct": direct, "long": {root: root}} {
		f, err := d.open("file")
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 7)
		if n, err := f.ReadAt(p, 0); f.Size() != 7 || n != 7 || err != nil || string(p) != "content" {
			t.Errorf("%s: %d bytes, %d read, %v, %q", about, f.Size(), n, err, p)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"folder", "link"} {
			if f, err := d.open(name); err != errNotPlain {
				t.Errorf("%s: open(%s) = %v, %v", about, name, f, err)
			}
		}
		if f, err := d.open("absent"); !isMissing(err) {
			t.Errorf("%s: open of nothing = %v, %v", about, f, err)
		}
	}
	c, ok := openDirect(direct.folder, "file")
	if !ok {
		if runtime.GOOS == "linux" || runtime.GOOS == "darwin" {
			t.Skip("this system does not have the direct way")
		}
		return
	}
	defer c.Close()
	for _, name := range []string{"folder", "link", "absent"} {
		if c, ok := openDirect(direct.folder, name); ok {
			t.Errorf("openDirect(%s) = %v", name, c)
		}
	}
}
