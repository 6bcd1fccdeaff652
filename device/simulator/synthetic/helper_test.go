package synthetic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"howett.net/plist"
)

func newSeries(t *testing.T, conf Config) *Series {
	t.Helper()
	conf.StateDir = t.TempDir()
	s, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// advance makes the next n days of the series s in dir.
func advance(t *testing.T, s *Series, dir string, n int) {
	t.Helper()
	for range n {
		if err := s.Next(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
	}
}

// state describes a file that scan has found.
type state struct {
	info fs.FileInfo
	sum  [32]byte
}

// scan returns the files of a folder by path. Folders have an empty sum.
func scan(t *testing.T, dir string) map[string]state {
	t.Helper()
	files := map[string]state{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		s := state{info: info}
		if !entry.IsDir() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s.sum = sha256.Sum256(b)
		}
		files[filepath.ToSlash(rel)] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

type manifestRow struct {
	id, domain, path string
	flags            int
	rowid            int
	*record
}

// backup is an open backup folder. If it is encrypted, it is unlocked.
type backup struct {
	dir      string
	rows     []manifestRow
	keys     *keybag.Keys
	manifest struct {
		Version                   string
		IsEncrypted               bool
		BackupKeyBag, ManifestKey []byte
		Lockdown                  struct{ UniqueDeviceID string }
		Applications              map[string]any
	}
	db string // path of the plain Manifest.db
}

func readPlist(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plist.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func openBackup(t *testing.T, dir, password string) *backup {
	t.Helper()
	b := &backup{dir: dir, db: filepath.Join(t.TempDir(), "Manifest.db")}
	readPlist(t, filepath.Join(dir, "Manifest.plist"), &b.manifest)
	if !b.manifest.IsEncrypted {
		password = ""
	}
	bag, err := keybag.Parse(b.manifest.BackupKeyBag)
	if err != nil {
		t.Fatal(err)
	}
	if b.keys, err = bag.Unlock(context.Background(), []byte(password), nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "Manifest.db"))
	if err != nil {
		t.Fatal(err)
	}
	if b.manifest.IsEncrypted {
		text = b.decrypt(t, "Manifest.db", text, b.manifest.ManifestKey)
	}
	if err := os.WriteFile(b.db, text, 0o600); err != nil {
		t.Fatal(err)
	}
	db := openReadOnly(t, b.db)
	rows, err := db.Query(`SELECT rowid, fileID, domain, relativePath, flags, file FROM Files ORDER BY rowid`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r manifestRow
		var blob []byte
		if err := rows.Scan(&r.rowid, &r.id, &r.domain, &r.path, &r.flags, &blob); err != nil {
			t.Fatal(err)
		}
		r.record = decodeMBFile(t, blob)
		if r.record.path != r.path {
			t.Errorf("row %s has the path %q in its metadata", r.path, r.record.path)
		}
		b.rows = append(b.rows, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return b
}

func openReadOnly(t *testing.T, path string) *sql.DB {
	t.Helper()
	name := filepath.ToSlash(path)
	db, err := sql.Open("sqlite", "file:"+name+"?mode=ro&immutable=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (b *backup) decrypt(t *testing.T, what string, encrypted, wrapped []byte) []byte {
	t.Helper()
	key, err := b.keys.Unwrap(wrapped)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	plain, err := io.ReadAll(keybag.NewDecrypter(bytes.NewReader(encrypted), key))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return plain
}

func (b *backup) stored(t *testing.T, r manifestRow) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, r.id[:2], r.id))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// content returns the plain content of the file in a row.
func (b *backup) content(t *testing.T, r manifestRow) []byte {
	t.Helper()
	stored := b.stored(t, r)
	if r.key == nil || len(stored) == 0 {
		return stored
	}
	return b.decrypt(t, r.domain+"-"+r.path, stored, r.key)
}

func (r manifestRow) String() string { return fmt.Sprintf("%s-%s", r.domain, r.path) }
