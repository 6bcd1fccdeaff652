//go:build unix

package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snap-backup/snap/repo/backend"
)

func TestModes(t *testing.T) {
	b := create(t)
	put(t, b, "config", "x")
	put(t, b, "packs/ab/cd", "x")
	for name, want := range map[string]os.FileMode{
		"":            os.ModeDir | 0o700,
		"tmp":         os.ModeDir | 0o700,
		"packs":       os.ModeDir | 0o700,
		"packs/ab":    os.ModeDir | 0o700,
		"config":      0o600,
		"packs/ab/cd": 0o600,
	} {
		info, err := os.Lstat(filepath.Join(b.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

// ReadAt must not wait for a pipe. Usually, opening a pipe waits until another process
// opens it for writing.
func TestPipe(t *testing.T) {
	b := create(t)
	if err := unix.Mkfifo(filepath.Join(b.Dir(), "config"), 0o600); err != nil {
		t.Skipf("no pipes here: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.ReadAt(ctx, "config", make([]byte, 1), 0)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("ReadAt of a pipe = %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("ReadAt of a pipe does not return")
	}
	if err := b.Put(ctx, "config", nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put over a pipe = %v", err)
	}
	if got := list(t, b, ""); len(got) != 0 {
		t.Errorf("List shows %q", got)
	}
}
