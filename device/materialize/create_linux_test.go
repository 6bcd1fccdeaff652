package materialize

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCreateDirect creates files under a umask that removes bits from some
// modes. Each file must get the requested mode and time, also if another file
// had the same mode before.
func TestCreateDirect(t *testing.T) {
	defer unix.Umask(unix.Umask(0o027))
	dir := t.TempDir()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	var exact exactModes
	for i, mode := range []os.FileMode{0o600, 0o644, 0o777, 0o644, 0o600, 0o640} {
		name := string(rune('a' + i))
		at := time.Unix(1_600_000_000, int64(i))
		f, err := createDirect(folder, name, mode, &exact)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
		if err := f.finish(mode, at, &refused{}); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode || !info.ModTime().Equal(at) || info.Size() != 1 {
			t.Errorf("asked for %v at %v, got %v at %v, %d bytes", mode, at, info.Mode(), info.ModTime(), info.Size())
		}
	}
}

// TestCreateDirectStaysInside tests that createDirect follows no links.
func TestCreateDirectStaysInside(t *testing.T) {
	t.Parallel()
	outside, dir := t.TempDir(), t.TempDir()
	for name, target := range map[string]string{"dir": outside, "file": filepath.Join(outside, "new")} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	for _, path := range []string{"dir/new", "file", "../" + filepath.Base(dir) + "x"} {
		if f, err := createDirect(folder, path, 0o600, &exactModes{}); err == nil {
			f.Close()
			t.Errorf("%s was created", path)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}
