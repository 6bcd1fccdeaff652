package ingest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// An import does not read the manifest if the folder has not changed since the
// parent snapshot. After any change, it reads the manifest.
func TestSame(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(m *foldertest.Folder)
		opts   Options
		read   bool
	}{
		"nothing":                        {change: func(*foldertest.Folder) {}},
		"rescan":                         {change: func(*foldertest.Folder) {}, opts: Options{Rescan: true}, read: true},
		"mode":                           {change: func(m *foldertest.Folder) { m.Check(os.Chmod(m.Blob("HomeDomain", "empty"), 0o600)) }, read: true},
		"empty folder added":             {change: func(m *foldertest.Folder) { m.Check(os.Mkdir(filepath.Join(m.Dir, "01"), 0o755)) }, read: true},
		"empty folder removed":           {change: func(m *foldertest.Folder) { m.Check(os.Remove(filepath.Join(m.Dir, "00"))) }, read: true},
		"mode of a folder":               {change: func(m *foldertest.Folder) { m.Check(os.Chmod(filepath.Join(m.Dir, "00"), 0o700)) }, read: true},
		"link added":                     {change: func(m *foldertest.Folder) { m.Check(os.Symlink("x", filepath.Join(m.Dir, "link"))) }, read: true},
		"file added beside the manifest": {change: func(m *foldertest.Folder) { m.Write("notes.txt", []byte("x")) }, read: true},
		"manifest rewritten":             {change: func(m *foldertest.Folder) { m.Finish(2) }, read: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, be := foldertest.New(t), memory.New()
			first := mustImport(t, createRepo(t, be), m.Dir, Options{})
			test.change(m)
			r := mustOpen(t, be, seed(3))
			second := mustImport(t, r, m.Dir, test.opts)
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
			if err := os.RemoveAll(filepath.Join(m.Dir, "link")); err != nil {
				t.Fatal(err)
			}
			if err := wantSame(r, second.Snapshot, foldertest.MustRead(t, m.Dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Content that the repository has lost is noticed and stored again, even if the
// folder has not changed.
func TestSameButLost(t *testing.T) {
	t.Parallel()
	m, be := foldertest.New(t), memory.New()
	mustImport(t, createRepo(t, be), m.Dir, Options{})
	for _, name := range repotest.FilesIn(t, be, "packs/") {
		c := be.Clone()
		if err := c.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, c, seed(3))
		res := mustImport(t, r, m.Dir, Options{})
		if err := wantSame(mustOpen(t, c, seed(4)), res.Snapshot, foldertest.MustRead(t, m.Dir)); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
