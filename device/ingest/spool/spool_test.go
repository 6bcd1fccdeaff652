package spool

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/internal/process"
)

// Open does not follow a link in the place of a spool or of one of its files.
func TestSpoolFollowsNoLinkOut(t *testing.T) {
	const name, precious = "snap-r-x", "precious content of somebody\n"
	for _, planted := range []string{name, filepath.Join(name, dataFile), filepath.Join(name, indexFile), filepath.Join(name, ownerFile)} {
		t.Run(planted, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			victim := filepath.Join(outside, indexFile)
			target := victim
			if planted == name {
				target = outside
			}
			if err := errors.Join(os.WriteFile(victim, []byte(precious), 0o600), os.MkdirAll(filepath.Dir(filepath.Join(dir, planted)), 0o700)); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, planted)); err != nil {
				t.Skip(err)
			}
			s, err := Open(dir, name, 1<<20, process.Current())
			if err == nil {
				_, _ = s.Load(t.Context())
				_ = s.Close()
				t.Error("it was opened")
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != precious {
				t.Errorf("the victim has %q, %v", b, err)
			}
		})
	}
}

// Load returns no file that is not in the data, whatever the index says. The
// spool can then be appended to.
func TestSpoolOfANonsensicalIndex(t *testing.T) {
	dir, self := t.TempDir(), process.Current()
	s, err := Open(dir, "snap-r-x", 1<<20, self)
	if err != nil {
		t.Fatal(err)
	}
	sum := blake.Sum(nil)
	empty := Line{Path: "Manifest.db", Offset: math.MaxInt64 - 1, Sum: sum[:]}
	if err := errors.Join(s.appendIndex(empty, Line{Path: "x", Offset: math.MaxInt64, Size: math.MaxInt64}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, "snap-r-x", 1<<20, self); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kept, err := s.Load(t.Context())
	if err != nil || len(kept) != 0 {
		t.Errorf("%+v, %v", kept, err)
	}
	s.Begin()
	if _, err := s.Write(make([]byte, bufferSize)); err != nil {
		t.Error(err)
	}
}
