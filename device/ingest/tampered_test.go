package ingest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// found returns the finding of a kind.
func found(t testing.TB, s *repo.Snapshot, kind string) repo.Finding {
	t.Helper()
	for _, f := range s.Findings {
		if f.Kind == kind {
			return f
		}
	}
	t.Fatalf("no finding of kind %s in %+v", kind, s.Findings)
	return repo.Finding{}
}

// keyed returns the fileIDs of all files that have a key and a blob that is not
// empty.
func (s *encryptedBackup) keyed() []string {
	s.t.Helper()
	rows, err := s.db.Query(`SELECT fileID FROM Files WHERE flags = 1 ORDER BY fileID`)
	s.check(err)
	var all []string
	for rows.Next() {
		var id string
		s.check(rows.Scan(&id))
		all = append(all, id)
	}
	s.check(rows.Err())
	return slices.DeleteFunc(all, func(id string) bool {
		info, err := os.Stat(filepath.Join(s.dir, id[:2], id))
		return err != nil || info.Size() == 0 || s.archive(id).root["EncryptionKey"] == nil
	})
}

// A folder that a program has decrypted in place is recognised. Its files are stored
// as they are and can be had decrypted, but no device can be restored from it.
func TestDecryptedInPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files     int // how many of 4 are decrypted
		decrypted bool
	}{
		"all": {4, true}, "three of four": {3, true}, "one of four": {1, false},
	} {
		for _, unlock := range []bool{true, false} {
			s := newEncryptedBackup(t, 31)
			decrypted := map[string]string{}
			for i, id := range s.keyed() {
				a := s.archive(id)
				if i%4 < c.files {
					content := s.decrypt(s.read(blobOf(id)), a.key())
					s.write(blobOf(id), content)
					a.root["Size"] = len(content)
					s.putArchive(id, a)
					decrypted[id] = string(content)
				}
			}
			s.db.Close()
			plain, err := os.ReadFile(s.file)
			s.check(err)
			s.write(mobilesync.ManifestDB, plain)

			be := memory.New()
			r := createRepo(t, be)
			b, err := mobilesync.Open(t.Context(), s.dir)
			s.check(err)
			if unlock {
				keys, err := b.Unlock(t.Context(), []byte(synthetic.DefaultPassword), nil)
				s.check(err)
				defer keys.Destroy()
			}
			res, err := Import(t.Context(), r, b, Options{Workers: 1})
			b.Close()
			s.check(err)
			got := finding.Has(res.Findings, finding.Decrypted)
			if got != c.decrypted || !res.Snapshot.Damaged() {
				t.Errorf("%s, unlock %v: decrypted %v, %+v", name, unlock, got, res.Findings)
			}
			if c.decrypted == finding.Has(res.Findings, finding.Cipher) {
				t.Errorf("%s, unlock %v: %+v", name, unlock, res.Findings)
			}
			if c.decrypted && finding.Has(res.Findings, finding.Digest) {
				t.Errorf("%s, unlock %v: %+v", name, unlock, res.Findings)
			}
			if !c.decrypted {
				continue
			}
			// The folder comes back as it was, and decrypted.
			s.check(materializeSame(mustOpen(t, be, seed(2)), res.Snapshot, t.TempDir(), foldertest.MustRead(t, s.dir)))
			out, err := materialize.WriteDecrypted(t.Context(), r, res.Snapshot, t.TempDir(), materialize.Options{Workers: 1})
			s.check(err)
			texts := map[string]bool{}
			s.check(filepath.WalkDir(out.Dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					var b []byte
					b, err = os.ReadFile(path)
					texts[string(b)] = true
				}
				return err
			}))
			for id, content := range decrypted {
				if !texts[content] {
					t.Errorf("%s, unlock %v: %s is not in the decrypted folder", name, unlock, id)
				}
			}
		}
	}
}

// Parts of two backups with different keys are recognised as such.
func TestTwoSetsOfKeys(t *testing.T) {
	t.Parallel()
	s := newEncryptedBackup(t, 32)
	n := 0
	for i, id := range s.files() {
		if i%2 == 0 {
			a := s.archive(id)
			key := append([]byte{}, a.key()...)
			key[len(key)-1] ^= 0x55
			a.setKey(key)
			s.putArchive(id, a)
			n++
		}
	}
	s.finish(s.encrypt)
	r := createRepo(t, memory.New())
	b, err := mobilesync.Open(t.Context(), s.dir)
	s.check(err)
	defer b.Close()
	keys, err := b.Unlock(t.Context(), []byte(synthetic.DefaultPassword), nil)
	s.check(err)
	defer keys.Destroy()
	res, err := Import(t.Context(), r, b, Options{Workers: 1})
	s.check(err)
	if f := found(t, res.Snapshot, finding.NoKey); f.Count != int64(n) {
		t.Errorf("%+v, want %d", f, n)
	}
	if f := found(t, res.Snapshot, finding.Keys); !strings.Contains(f.Text, "two backups with different keys") {
		t.Errorf("%+v", f)
	}
}

// A backup inside a backup is named, with the advice to import it.
func TestNested(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at   string
		day  int
		says string // "" if nothing is said
	}{
		"newer":         {foldertest.UDID, 9, "a newer backup is in this folder (2026-01-09); import it, too: "},
		"older":         {"old/" + foldertest.UDID, 1, "an older backup is in this folder (2026-01-01)"},
		"same":          {"copy", 2, "another backup is in this folder (2026-01-02)"},
		"being written": {"Snapshot", 9, ""},
	} {
		inner := foldertest.New(t)
		inner.Finish(c.day)
		m := foldertest.New(t)
		m.Finish(2)
		if err := os.CopyFS(filepath.Join(m.Dir, filepath.FromSlash(c.at)), os.DirFS(inner.Dir)); err != nil {
			t.Fatal(err)
		}
		s := mustImport(t, createRepo(t, memory.New()), m.Dir, Options{Workers: 1, AllowIncomplete: true}).Snapshot
		if c.says == "" {
			if finding.Has(s.Findings, finding.Nested) {
				t.Errorf("%s: %+v", name, s.Findings)
			}
			continue
		}
		f := found(t, s, finding.Nested)
		if f.Consequence != repo.Remark || !s.Complete || !strings.Contains(f.Text, c.says) || !strings.HasSuffix(f.Text, filepath.Join(m.Dir, filepath.FromSlash(c.at))) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
