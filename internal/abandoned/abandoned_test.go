package abandoned

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/process"
)

// owners returns identities by their states: this process, another one that runs, one
// that has ended, and one of another computer. It skips the test if the system does not
// tell whether a process runs.
func owners(t *testing.T) (self, running, ended, elsewhere process.Identity) {
	t.Helper()
	self = process.Current()
	running, ended, elsewhere = self, self, self
	running.User = "anna" // it differs from self, but its process runs
	ended.Started = "1"   // the number was reused
	elsewhere.Host, elsewhere.Boot, elsewhere.Machine = "other", "other", "other"
	if running.State(self) != process.Alive || ended.State(self) != process.Dead || elsewhere.State(self) != process.Unknown {
		t.Skip("this system does not tell whether a process runs")
	}
	return self, running, ended, elsewhere
}

// leave makes a folder of an owner with three bytes.
func leave(t *testing.T, dir string, owner any) {
	t.Helper()
	b, err := json.Marshal(owner)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if owner != nil {
		if err := os.WriteFile(dir+OwnerSuffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	self, running, ended, elsewhere := owners(t)
	dir := t.TempDir()
	for name, owner := range map[string]any{
		"x-self": self, "x-running": running, "x-ended": ended, "x-elsewhere": elsewhere,
		"x-unmarked": nil, "x-odd": []string{"no owner"}, "other": ended, "unused": nil,
	} {
		leave(t, filepath.Join(dir, name), owner)
	}
	// An owner file without a folder, and a link to a folder, which is not followed.
	if err := os.Rename(filepath.Join(dir, "x-ended"+OwnerSuffix), filepath.Join(dir, "x-gone"+OwnerSuffix)); err != nil {
		t.Fatal(err)
	}
	leave(t, filepath.Join(dir, "x-ended"), ended)
	leave(t, filepath.Join(dir, "target"), nil)
	if err := os.Symlink("target", filepath.Join(dir, "x-link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "other"+OwnerSuffix), filepath.Join(dir, "x-link"+OwnerSuffix)); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	use := func(name string) Use {
		if name == "unused" {
			return Unused
		}
		return ClaimedIf(func(name string) bool { return strings.HasPrefix(name, "x-") })(name)
	}
	err := Sweep(t.Context(), dir, use, self, func(f Folder) {
		got[filepath.Base(f.Path)] = f.Removed
		if f.Bytes != 3 {
			t.Errorf("%s has %d bytes", f.Path, f.Bytes)
		}
		if (f.Owner == nil) != slices.Contains([]string{"x-unmarked", "x-odd", "unused"}, filepath.Base(f.Path)) {
			t.Errorf("%s is of %v", f.Path, f.Owner)
		}
	})
	if want := map[string]bool{"x-ended": true, "unused": true, "x-elsewhere": false, "x-unmarked": false, "x-odd": false}; err != nil || !maps.Equal(got, want) {
		t.Errorf("found %v, want %v: %v", got, want, err)
	}
	for name, want := range map[string]bool{
		"x-self/sub/file": true, "x-running/sub/file": true, "x-running.owner": true, "x-ended": false, "x-ended.owner": false,
		"x-gone.owner": false, "x-elsewhere/sub/file": true, "x-elsewhere.owner": true, "target/sub/file": true, "other/sub/file": true,
	} {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Sweep(t.Context(), filepath.Join(dir, "missing"), nil, self, nil); err != nil {
		t.Error(err)
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	self, running, ended, elsewhere := owners(t)
	dir := filepath.Join(t.TempDir(), "x")
	for _, before := range []any{nil, self, ended, elsewhere, []string{"no owner"}} {
		leave(t, dir, before)
		release, err := Claim(dir, self)
		if err != nil {
			t.Fatalf("after %v: %v", before, err)
		}
		if got := readOwner(os.DirFS(filepath.Dir(dir)), "x"+OwnerSuffix); got == nil || *got != self {
			t.Errorf("after %v: the owner is %v", before, got)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	}
	leave(t, dir, running)
	if _, err := Claim(dir, self); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "anna") {
		t.Errorf("of a running process: %v", err)
	}
}
