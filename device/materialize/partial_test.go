package materialize

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/abandoned"
	"github.com/snap-backup/snap/internal/process"
)

// What killed runs have left in a target goes before the next run writes there, whatever
// snapshot it was for. What may still be in use stays.
func TestMaterializeRemovesAbandonedFolders(t *testing.T) {
	t.Parallel()
	self := process.Current()
	ended, elsewhere := self, self
	ended.Started = "1"
	elsewhere.Host, elsewhere.Boot, elsewhere.Machine = "other", "other", "other"
	if ended.State(self) != process.Dead {
		t.Skip("this system does not tell whether a process runs")
	}
	be, s, want := stored(t)
	target := t.TempDir()
	leave := func(name string, owner *process.Identity) {
		t.Helper()
		dir := filepath.Join(target, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("abc"), 0o600); err != nil {
			t.Fatal(err)
		}
		if owner != nil {
			b, err := json.Marshal(owner)
			if err == nil {
				err = os.WriteFile(dir+abandoned.OwnerSuffix, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	leave(".other.0123abcd.partial", &ended)
	leave("."+foldertest.UDID+"-decrypted.0123abcd.partial", &ended)
	leave(".other.00000000.partial", &elsewhere)
	leave(".other.11111111.partial", &self)
	leave("other", nil)                            // a complete folder
	leave(".other.22222222.partial.replaced", nil) // was replaced by it
	leave(".other.22222222.partial.old", nil)      // was to be replaced by another run
	leave(".missing.22222222.partial.old", nil)    // the same
	leave(".other.33333333.partial", nil)          // of an earlier version
	leave(".other.33333333.partial.old", nil)      // the run was killed before it replaced it
	leave(".other.partial", nil)                   // not of snap
	leave(filepath.Base(hidden(target, s)), nil)   // its file is not of the snapshot
	removed, named := []string{}, []string{}
	res, err := Write(t.Context(), mustOpen(t, be, seed(2)), s, target, Options{Abandoned: func(f abandoned.Folder) {
		if f.Bytes != 3 {
			t.Errorf("%s has %d bytes", f.Path, f.Bytes)
		}
		if f.Removed {
			removed = append(removed, filepath.Base(f.Path))
		} else {
			named = append(named, filepath.Base(f.Path))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := want.Diff(foldertest.MustRead(t, res.Dir)); err != nil {
		t.Error(err)
	}
	slices.Sort(removed)
	slices.Sort(named)
	if want := []string{"." + foldertest.UDID + "-decrypted.0123abcd.partial", ".other.0123abcd.partial", ".other.22222222.partial.replaced"}; !slices.Equal(removed, want) {
		t.Errorf("removed %q, want %q", removed, want)
	}
	if want := []string{".missing.22222222.partial.old", ".other.00000000.partial", ".other.22222222.partial.old", ".other.33333333.partial", ".other.33333333.partial.old"}; !slices.Equal(named, want) {
		t.Errorf("named %q, want %q", named, want)
	}
	var left []string
	entries, err := os.ReadDir(target)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{
		".missing.22222222.partial.old", ".other.00000000.partial", ".other.00000000.partial.owner", ".other.11111111.partial", ".other.11111111.partial.owner",
		".other.22222222.partial.old", ".other.33333333.partial", ".other.33333333.partial.old", ".other.partial", foldertest.UDID, "other",
	}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q: %v", left, want, err)
	}
}

// The size of a file is compared with what the file system can hold.
func TestHolds(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m := &job{root: root}
	if err := m.holds(5 << 30); err != nil {
		t.Errorf("5 GiB: %v", err)
	}
	if left, err := os.ReadDir(root.Name()); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}

// A file system that loses the content of a renamed folder is named.
func TestKeptContent(t *testing.T) {
	t.Parallel()
	if err := keptContent("x", 3, 3); err != nil {
		t.Error(err)
	}
	if err := keptContent("x", 3, 0); err == nil || !strings.Contains(err.Error(), "x has 0 of 3") {
		t.Errorf("got %v", err)
	}
}
