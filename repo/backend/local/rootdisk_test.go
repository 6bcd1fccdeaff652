package local

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
)

// unflushed is a real disk that does not flush. It speeds up tests that do not test
// durability.
type unflushed struct{ rootDisk }

func (unflushed) syncDir(string) error { return nil }

func (d unflushed) create(name string) (file, error) {
	f, err := d.rootDisk.create(name)
	return unflushedFile{f}, err
}

type unflushedFile struct{ file }

func (unflushedFile) Sync() error { return nil }

// The contract holds without openDirect.
func TestContractWithoutOpenDirect(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		b := newBackend(root.Name(), unflushed{rootDisk{root: root}}, rand.Reader, root.Close)
		t.Cleanup(func() { _ = b.Close() })
		return b
	})
}

// pair simulates two processes, which make calls in turn.
type pair struct {
	stores [2]backend.Backend
	n      atomic.Uint32
}

func (p *pair) next() backend.Backend { return p.stores[p.n.Add(1)%2] }
func (p *pair) Put(ctx context.Context, name string, data []byte) error {
	return p.next().Put(ctx, name, data)
}
func (p *pair) ReadAt(ctx context.Context, name string, b []byte, off int64) (int, error) {
	return p.next().ReadAt(ctx, name, b, off)
}
func (p *pair) Stat(ctx context.Context, name string) (backend.Info, error) {
	return p.next().Stat(ctx, name)
}
func (p *pair) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return p.next().List(ctx, prefix, fn)
}
func (p *pair) Delete(ctx context.Context, name string) error { return p.next().Delete(ctx, name) }

func TestContractOfTwoProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "link")); err != nil {
		t.Skipf("without hard links two processes can put the same name (see the package comment): %v", err)
	}
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		dir := t.TempDir()
		var p pair
		for i := range p.stores {
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			d := newRootDisk(root)
			b := newBackend(dir, unflushed{d}, rand.Reader, d.close)
			t.Cleanup(func() { _ = b.Close() })
			p.stores[i] = b
		}
		return &p
	})
}

// linkless is a real disk without hard links.
type linkless struct{ unflushed }

func (linkless) link(_, _ string) error { return syscall.EPERM }

func TestContractWithoutLinks(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d := newRootDisk(root)
		b := newBackend(root.Name(), linkless{unflushed{d}}, rand.Reader, d.close)
		t.Cleanup(func() {
			if tmp, err := d.readDir(tmpFolder); err == nil && len(tmp) > 0 {
				t.Errorf("tmp has %v", tmp)
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
	for about, d := range map[string]rootDisk{"direct": direct, "through os.Root": {root: root}} {
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
			if f, err := d.open(name); err != backend.ErrNotRegular {
				t.Errorf("%s: open(%s) = %v, %v", about, name, f, err)
			}
		}
		if f, err := d.open("absent"); !isMissing(err) {
			t.Errorf("%s: open of a missing file = %v, %v", about, f, err)
		}
	}
	c, ok := openDirect(direct.folder, "file")
	if !ok {
		if runtime.GOOS == "linux" || runtime.GOOS == "darwin" {
			t.Skip("openDirect does not work on this system")
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
