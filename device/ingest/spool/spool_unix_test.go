//go:build unix

package spool

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"golang.org/x/sys/unix"
)

// Open refuses a pipe in the place of a file, since opening it would wait for
// ever.
func TestSpoolWaitsForNoPipe(t *testing.T) {
	const repo, run = "0123456789abcdef0123456789abcdef", "0123456789abcdef"
	for _, planted := range []string{ownerFile, indexFile, dataFile} {
		dir := t.TempDir()
		name := Name(repo, run)
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(dir, name, planted), 0o600); err != nil {
			t.Skip(err)
		}
		done := make(chan error, 1)
		go func() {
			Sweep(dir, repo, nil, process.Current())
			s, err := Open(dir, name, 1<<20, process.Current())
			if err == nil {
				_, err = s.Load(t.Context())
				_ = s.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: the pipe was accepted", planted)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s: opening the pipe did not return", planted)
		}
	}
}
