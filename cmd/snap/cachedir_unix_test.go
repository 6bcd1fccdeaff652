//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Without a home folder the cache is in the folder for temporary files, to which
// every user can write.
func TestCacheDirWithoutHome(t *testing.T) {
	tests := []struct {
		what  string
		plant func(dir string) error
		want  string // in the error; "" for success
	}{
		{"not there", func(string) error { return nil }, ""},
		{"one's own", func(dir string) error { return os.Mkdir(dir, 0o700) }, ""},
		{"open to all", func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) }, "mode 0777"},
		{"readable by all", func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) }, "mode 0755"},
		{"a link", func(dir string) error { return os.Symlink(filepath.Dir(dir), dir) }, "is not a folder"},
		{"a file", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "is not a folder"},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.what, last.want = "another user's", "belongs to another user"
		last.plant = func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345)) }
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("HOME", "")
			t.Setenv("XDG_CACHE_HOME", "")
			t.Setenv("TMPDIR", temp)
			base := filepath.Join(temp, fmt.Sprintf("snap-%d", os.Getuid()))
			if err := tt.plant(base); err != nil {
				t.Fatal(err)
			}
			dir, err := cacheDir("spool")
			if tt.want == "" {
				if err != nil || dir != filepath.Join(base, "snap", "spool") {
					t.Fatalf("%q, %v", dir, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%q, %v, want %q", dir, err, tt.want)
			}
			if _, hint := classify("", err); !strings.Contains(hint, "XDG_CACHE_HOME") {
				t.Errorf("hint %q", hint)
			}
		})
	}
}

// TestReadableByAll checks that only a file that others can reach counts as readable.
func TestReadableByAll(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "snap-readable")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file, dir os.FileMode
		want      bool
	}{{0o644, 0o755, true}, {0o600, 0o755, false}, {0o640, 0o755, false}, {0o644, 0o700, false}, {0o604, 0o711, true}} {
		if err := errors.Join(os.Chmod(file, test.file), os.Chmod(dir, test.dir)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := readableByAll(file, info); got != test.want {
			t.Errorf("file %v in a folder %v: %v", test.file, test.dir, got)
		}
	}
}
