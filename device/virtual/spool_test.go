package virtual

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/internal/process"
	"lukechampine.com/blake3"
)

// A link that somebody has planted where a spool comes leads nowhere.
func TestSpoolFollowsNoLinkOut(t *testing.T) {
	const name, precious = "snap-r-x", "precious content of somebody\n"
	for _, planted := range []string{name, filepath.Join(name, spoolData), filepath.Join(name, spoolIndex), filepath.Join(name, spoolOwner)} {
		t.Run(planted, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			victim := filepath.Join(outside, spoolIndex)
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
			s, err := openSpool(dir, name, 1<<20, process.Current())
			if err == nil {
				_, _ = s.load(t.Context())
				_ = s.close()
				t.Error("it was opened")
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != precious {
				t.Errorf("the victim has %q, %v", b, err)
			}
		})
	}
}

// Whatever an index says, a spool takes in no file that its data has not, and can
// be appended to.
func TestSpoolOfANonsensicalIndex(t *testing.T) {
	dir, self := t.TempDir(), process.Current()
	s, err := openSpool(dir, "snap-r-x", 1<<20, self)
	if err != nil {
		t.Fatal(err)
	}
	sum := blake3.Sum256(nil)
	empty := spoolLine{Path: "Manifest.db", Offset: math.MaxInt64 - 1, Sum: sum[:]}
	if err := errors.Join(s.note(empty, spoolLine{Path: "x", Offset: math.MaxInt64, Size: math.MaxInt64}), s.close()); err != nil {
		t.Fatal(err)
	}
	if s, err = openSpool(dir, "snap-r-x", 1<<20, self); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	kept, err := s.load(t.Context())
	if err != nil || len(kept) != 0 {
		t.Errorf("%+v, %v", kept, err)
	}
	s.begin()
	if _, err := s.Write(make([]byte, spoolBuffer)); err != nil {
		t.Error(err)
	}
}
