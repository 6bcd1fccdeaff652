//go:build unix

package mobilesync

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPipesDoNotBlock(t *testing.T) {
	dir := backupSpec{}.build(t)
	for _, name := range []string{"aa/pipe", "Manifest.mbdb"} {
		if err := unix.Mkfifo(filepath.Join(dir, filepath.FromSlash(name)), 0o600); err != nil {
			t.Skip(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := mustOpen(t, dir)
		if f, err := b.OpenFile("aa/pipe"); err == nil {
			f.Close()
			t.Error("a pipe was opened")
		}
		skipped := 0
		for f, err := range b.Files(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			if f.Skipped == "named pipe" {
				skipped++
			}
		}
		if skipped != 2 {
			t.Errorf("%d pipes", skipped)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("blocked on a pipe")
	}
}
