package transfer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// An import of a folder that is what its parent has does not read the manifest;
// the least difference makes it read it.
func TestSame(t *testing.T) {
	for name, test := range map[string]struct {
		change func(m *mini)
		opts   ImportOptions
		read   bool
	}{
		"nothing":            {change: func(*mini) {}},
		"rescan":             {change: func(*mini) {}, opts: ImportOptions{Rescan: true}, read: true},
		"mode":               {change: func(m *mini) { m.check(os.Chmod(m.blob("HomeDomain", "empty"), 0o600)) }, read: true},
		"empty folder more":  {change: func(m *mini) { m.check(os.Mkdir(filepath.Join(m.dir, "01"), 0o755)) }, read: true},
		"empty folder less":  {change: func(m *mini) { m.check(os.Remove(filepath.Join(m.dir, "00"))) }, read: true},
		"mode of a folder":   {change: func(m *mini) { m.check(os.Chmod(filepath.Join(m.dir, "00"), 0o700)) }, read: true},
		"link more":          {change: func(m *mini) { m.check(os.Symlink("x", filepath.Join(m.dir, "link"))) }, read: true},
		"file beside":        {change: func(m *mini) { m.write("notes.txt", []byte("x")) }, read: true},
		"manifest, as it is": {change: func(m *mini) { m.finish(2) }, read: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, be := newMini(t), memory.New()
			first := mustImport(t, createRepo(t, be), m.dir, ImportOptions{})
			test.change(m)
			r := mustOpen(t, be, 3)
			second := mustImport(t, r, m.dir, test.opts)
			if read := second.Report != nil; read != test.read {
				t.Errorf("the manifest was read: %v", read)
			}
			if !test.read {
				if second.Snapshot.Root != first.Snapshot.Root || second.Files != first.Files || second.Bytes != first.Bytes || second.ReadFiles != 0 {
					t.Errorf("%+v after %+v", second, first)
				}
				if n := second.Snapshot.NewChunks; n != 0 {
					t.Errorf("%d chunks were stored", n)
				}
			}
			if err := os.RemoveAll(filepath.Join(m.dir, "link")); err != nil {
				t.Fatal(err)
			}
			if err := giveBack(r, second.Snapshot, t.TempDir(), takePicture(t, m.dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// What the repository has lost is noticed, and stored anew.
func TestSameButLost(t *testing.T) {
	m, be := newMini(t), memory.New()
	mustImport(t, createRepo(t, be), m.dir, ImportOptions{})
	for _, name := range fileNames(t, be, "packs/") {
		c := be.Clone()
		if err := c.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, c, 3)
		res := mustImport(t, r, m.dir, ImportOptions{})
		if err := giveBack(mustOpen(t, c, 4), res.Snapshot, t.TempDir(), takePicture(t, m.dir)); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
