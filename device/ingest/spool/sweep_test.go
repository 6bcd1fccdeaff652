package spool

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/process"
)

// Sweep removes only spools that no backup will continue, and never one of a running
// process.
func TestSweepSpools(t *testing.T) {
	self := process.Current()
	if self.Started == "" {
		t.Skip("this system does not tell when a process started")
	}
	dead, elsewhere := self, self
	dead.Started += "1"
	elsewhere.Boot, elsewhere.Machine = "another", "another" // and of the same name
	const mine, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	for i, c := range []struct {
		what  string
		repo  string
		known bool
		owner *process.Identity // nil if the spool has no owner file
		age   time.Duration
		stays bool
	}{
		{"known, dead", mine, true, &dead, 100 * 24 * time.Hour, true},
		{"dead", mine, false, &dead, 0, false},
		{"alive and old", mine, false, &self, 100 * 24 * time.Hour, true},
		{"elsewhere", mine, false, &elsewhere, time.Hour, true},
		{"elsewhere, old", mine, false, &elsewhere, 25 * time.Hour, false},
		{"no owner, new", mine, false, nil, time.Hour, true},
		{"no owner, old", mine, false, nil, 25 * time.Hour, false},
		{"another repository, dead", other, false, &dead, 29 * 24 * time.Hour, true},
		{"another repository, dead, old", other, false, &dead, 31 * 24 * time.Hour, false},
		{"another repository, alive and old", other, false, &self, 31 * 24 * time.Hour, true},
		{"not a spool", "x", false, &dead, 100 * 24 * time.Hour, true},
		{"a copy with another name", mine + "-0123456789abcdef", false, &dead, 100 * 24 * time.Hour, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			run := strings.Repeat("a", 15) + string(rune('0'+i%10))
			name := filepath.Join(dir, Name(c.repo, run))
			if err := os.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(name, dataFile), []byte("sealed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.owner != nil {
				b, err := json.Marshal(c.owner)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(name, ownerFile), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			used := time.Now().Add(-c.age)
			for _, file := range []string{dataFile, ownerFile, "."} {
				if err := os.Chtimes(filepath.Join(name, file), used, used); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			Sweep(dir, mine, map[string]bool{run: c.known}, self)
			if _, err := os.Stat(name); (err == nil) != c.stays {
				t.Errorf("it is there: %v, want %v", err == nil, c.stays)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "snap-time-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A file that is sent again is removed from the index before its next version
// is written.
func TestSpoolForgets(t *testing.T) {
	dir, self := t.TempDir(), process.Current()
	s, err := Open(dir, "snap-r-x", 1<<20, self)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, content string, noted bool) {
		t.Helper()
		s.Begin()
		if _, err := s.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		s.Commit(path)
		if noted {
			if err := errors.Join(s.Flush(), s.indexFresh()); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("noted", "first", true)
	write("waits", "first", false)
	write("stays", "content", true)
	for _, path := range []string{"noted", "waits"} {
		if err := s.Forget(path); err != nil {
			t.Fatal(err)
		}
	}
	write("waits", "second", false)
	if err := errors.Join(s.Sync(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, "snap-r-x", 1<<20, self); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Load(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Load with a canceled context: %v", err)
	}
	kept, err := s.Load(t.Context())
	if err != nil || len(kept) != 2 || kept["stays"].Size != 7 || kept["waits"].Size != 6 {
		t.Errorf("%+v, %v", kept, err)
	}
}
