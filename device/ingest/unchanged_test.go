package ingest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
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

// A locked backup that the parent has stored decrypted is not stored a second time. Files
// that may have changed are compared byte by byte.
func TestSameWithoutPassword(t *testing.T) {
	t.Parallel()
	dir := encryptedFolder(t, 3)
	base := memory.New()
	r := createRepo(t, base)
	first := importUnlocked(t, r, dir, synthetic.DefaultPassword, Options{Workers: 1})
	if !first.Snapshot.Unlocked || first.Decrypted == 0 {
		t.Fatalf("%+v", first)
	}
	// The largest blob: its ends are in other blocks.
	var blob string
	var blobInfo os.FileInfo
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(d.Name()) != 40 {
			return err
		}
		info, err := d.Info()
		if err == nil && (blobInfo == nil || info.Size() > blobInfo.Size()) {
			blob, blobInfo = path, info
		}
		return err
	}))
	bytes, err := os.ReadFile(blob)
	check(err)
	write := func(b []byte) {
		t.Helper()
		check(os.WriteFile(blob, b, 0o644))
		check(os.Chtimes(blob, blobInfo.ModTime(), blobInfo.ModTime()))
	}
	flipped := func(at int) []byte {
		b := append([]byte(nil), bytes...)
		b[at] ^= 1
		return b
	}
	skip := Options{SkipIfUnchanged: true, Workers: 2}
	for _, test := range []struct {
		name   string
		change func()
		opts   Options
		same   bool
		read   bool
	}{
		{name: "nothing", opts: skip, same: true},
		{name: "rescan", opts: Options{SkipIfUnchanged: true, Rescan: true}, same: true, read: true},
		{name: "written again", change: func() { write(bytes) }, opts: skip, same: true, read: true},
		{name: "kept", opts: Options{}, same: true, read: true},
		{name: "locked", opts: Options{SkipIfUnchanged: true, Locked: true}},
		{name: "first byte", change: func() { write(flipped(0)) }, opts: skip},
		{name: "last byte", change: func() { write(flipped(len(bytes) - 1)) }, opts: skip},
		{name: "longer", change: func() { write(append(flipped(0), bytes...)) }, opts: skip},
		{name: "mode", change: func() { write(bytes); check(os.Chmod(blob, 0o600)) }, opts: skip},
	} {
		if test.change != nil {
			test.change()
		}
		be := base.Clone()
		r := mustOpen(t, be, seed(3))
		res := mustImport(t, r, dir, test.opts)
		if res.NoPassword != test.same || res.Unchanged != (test.same && test.opts.SkipIfUnchanged) || res.Snapshot.Unlocked != test.same {
			t.Errorf("%s: unchanged %v, without a password %v, decrypted %v", test.name, res.Unchanged, res.NoPassword, res.Snapshot.Unlocked)
		}
		if test.same && (res.Snapshot.Root != first.Snapshot.Root || (res.ReadFiles > 0) != test.read || res.Bytes != first.Bytes || res.Files != first.Files) {
			t.Errorf("%s: %+v", test.name, res)
		}
		if err := wantSame(r, res.Snapshot, foldertest.MustRead(t, dir)); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// What the repository has lost is stored again, although only locked.
	write(bytes)
	check(os.Chmod(blob, blobInfo.Mode()))
	for _, name := range repotest.FilesIn(t, base, "packs/") {
		be := base.Clone()
		check(be.Delete(t.Context(), name))
		for _, rescan := range []bool{false, true} {
			r := mustOpen(t, be, seed(3))
			res := mustImport(t, r, dir, Options{SkipIfUnchanged: true, Rescan: rescan})
			if err := wantSame(mustOpen(t, be, seed(4)), res.Snapshot, foldertest.MustRead(t, dir)); err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
}
