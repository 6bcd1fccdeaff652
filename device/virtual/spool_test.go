package virtual

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/repo/owner"
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
			s, err := openSpool(dir, name, 1<<20, owner.Self())
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
