package main

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/repotest"
)

// A repository of an earlier version is told whose labels are not proven. Its keys are
// renewed one by one, when their owners use them.
func TestOlderKeysAreRenewed(t *testing.T) {
	p := newPatient(t)
	be := p.stores["repo"]
	golden := os.DirFS("../../repo/testdata/golden-v1")
	if err := fs.WalkDir(golden, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(golden, name)
		if err != nil {
			return err
		}
		return be.Put(t.Context(), name, b)
	}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SNAP_PASSWORD", "golden password")
	keys := repotest.FilesIn(t, be, repotest.KeysDir)
	expect := func(line string, code int, want ...string) string {
		t.Helper()
		got, out := p.run(line)
		if got != code {
			t.Fatalf("snap %s: exit code %d: %s", line, got, out)
		}
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("snap %s: %q is not in\n%s", line, text, out)
			}
		}
		return out
	}
	expect("snapshots", 0)
	if got := repotest.FilesIn(t, be, repotest.KeysDir); strings.Join(got, " ") != strings.Join(keys, " ") {
		t.Error("a command that only reads has changed the keys")
	}
	expect("key list", 0, `its label "golden" is bound to it`, "(not proven)", "1 key of an older version")
	if out := expect("key list", 0, "(not proven)"); strings.Contains(out, "bound to it") {
		t.Error("renewed again:\n" + out)
	}
	// Both keys are left, and config has a copy.
	if got := repotest.FilesIn(t, be, repotest.KeysDir); len(got) != 2 || len(repotest.FilesIn(t, be, "configs/")) != 1 {
		t.Error(got)
	}
	var older, mine string
	for _, name := range repotest.FilesIn(t, be, repotest.KeysDir) {
		id := strings.TrimPrefix(name, repotest.KeysDir)
		if strings.Contains(strings.Join(keys, " "), id) {
			older = id
		} else {
			mine = id
		}
	}
	expect("key remove "+mine, 1, "only keys of an older version would be left", "run this command with one of the keys that are to stay")
	expect("key remove "+older, 0, "it is not proven that the key no longer opens the repository", "the key was of an older version", "removed key "+older[:8])
	expect("check --read-data", 0)
}
