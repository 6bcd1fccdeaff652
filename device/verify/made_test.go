package verify

import (
	"bytes"
	"crypto/sha1"
	"database/sql"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
	"howett.net/plist"
)

const password = "pears"

// madeFile is a file of a made backup.
type madeFile struct {
	rec     manifest.Record // Domain, RelativePath, ProtectionClass
	content []byte
	digest  bool
	sent    func([]byte) []byte    // changes the blob before its digest is made
	blob    func([]byte) []byte    // changes the blob; nil as result removes it
	row     func(*manifest.Record) // changes the row
}

// made is a backup that a test changes before write.
type made struct {
	testing.TB
	encrypted bool
	files     []*madeFile
	keys      *keybag.Keys
	bag       []byte
	// The property lists.
	manifest, info, status map[string]any
	sql                    []string // run on Manifest.db at the end
	tail                   []byte   // after Manifest.db, before it is encrypted
	plainDB                bool     // leave Manifest.db unencrypted
	more                   map[string][]byte
}

// Paths of files of a made backup.
const (
	smsDB  = "Library/SMS/sms.db"
	bigDB  = "Library/Other/events.sqlite"
	list   = "Library/Preferences/com.example.plist"
	photo  = "Media/DCIM/100APPLE/IMG_0001.HEIC"
	photo2 = "Media/DCIM/100APPLE/IMG_0002.HEIC"
	text   = "Library/text.txt"
	empty  = "Library/empty"
)

func newMade(t testing.TB, encrypted bool) *made {
	t.Helper()
	m := &made{TB: t, encrypted: encrypted, more: map[string][]byte{}}
	random := rand.NewChaCha8([32]byte{1})
	pw := ""
	if encrypted {
		pw = password
	}
	var err error
	if m.bag, m.keys, err = keybag.New(random, []byte(pw), keybag.NewOptions{Iter: 1, DPIC: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.keys.Destroy)
	binary := manifesttest.Plist(manifesttest.Dict{{"name", "Anna"}, {"list", []any{1, 2, "three"}}})
	for _, f := range []struct {
		domain, path string
		content      []byte
		digest       bool
	}{
		{"HomeDomain", smsDB, madeDatabase(t, 300), true},
		{"HomeDomain", bigDB, madeDatabase(t, 900), false},
		{"HomeDomain", list, binary, true},
		{"AppDomain-com.example", list, binary, false},
		{"CameraRollDomain", photo, foldertest.Noise(1, 30_000), false},
		{"CameraRollDomain", photo2, foldertest.Noise(2, 16_000), true},
		{"HomeDomain", text, bytes.Repeat([]byte("some text. "), 40), false},
		{"HomeDomain", empty, nil, false},
	} {
		m.files = append(m.files, &madeFile{content: f.content, digest: f.digest, rec: manifest.Record{Domain: f.domain, RelativePath: f.path, ProtectionClass: 3, ModTime: 1_780_000_000}})
	}
	now := time.Date(2026, 6, 5, 4, 3, 2, 0, time.UTC)
	m.manifest = map[string]any{
		"Version": "10.0", "Date": now, "IsEncrypted": encrypted, "BackupKeyBag": m.bag,
		"Lockdown": map[string]any{"UniqueDeviceID": foldertest.UDID, "DeviceName": "Made", "ProductType": "iPhone14,5", "ProductVersion": "18.2"},
	}
	m.info = map[string]any{"Device Name": "Made", "Target Identifier": foldertest.UDID, "Last Backup Date": now}
	m.status = map[string]any{"Version": "3.3", "UUID": "RUN", "Date": now, "SnapshotState": "finished", "BackupState": "new"}
	return m
}

// madeDatabases remembers the result of madeDatabase by its number of rows.
var madeDatabases sync.Map

// madeDatabase returns an SQLite database with about n rows and an index.
func madeDatabase(t testing.TB, n int) []byte {
	t.Helper()
	if b, ok := madeDatabases.Load(n); ok {
		return slices.Clone(b.([]byte))
	}
	name := filepath.Join(t.TempDir(), "made.db")
	manifesttest.WriteDB(t, name, "CREATE TABLE message (id INTEGER PRIMARY KEY, guid TEXT UNIQUE, text TEXT)", func(tx *sql.Tx) error {
		r := rand.New(rand.NewPCG(1, uint64(n)))
		for i := range n {
			if _, err := tx.Exec("INSERT INTO message VALUES (?,?,?)", i, hex.EncodeToString(binaryOf(r.Uint64())), "this is a message of some length"); err != nil {
				return err
			}
		}
		return nil
	})
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	madeDatabases.Store(n, slices.Clone(b))
	return b
}

// ruleBreaker returns an SQLite database with a row that its schema forbids.
func ruleBreaker(t testing.TB) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "made.db")
	manifesttest.WriteDB(t, name, "CREATE TABLE message (id INTEGER PRIMARY KEY, text TEXT)", func(tx *sql.Tx) error {
		for _, q := range []string{
			"INSERT INTO message VALUES (1, 'long'), (2, NULL)", "PRAGMA writable_schema=ON",
			"UPDATE sqlite_schema SET sql='CREATE TABLE message (id INTEGER PRIMARY KEY, text TEXT NOT NULL)'",
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return nil
	})
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func binaryOf(v uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// file returns a file; the first with this path.
func (m *made) file(path string) *madeFile {
	for _, f := range m.files {
		if f.rec.RelativePath == path {
			return f
		}
	}
	m.Fatalf("no file %s", path)
	return nil
}

func (m *made) encrypt(key keybag.FileKey, b []byte) []byte {
	var out bytes.Buffer
	w := keybag.NewEncrypter(&out, key)
	if _, err := w.Write(b); err != nil {
		m.Fatal(err)
	}
	if err := w.Close(); err != nil {
		m.Fatal(err)
	}
	return out.Bytes()
}

// wrap returns a key and its wrapped form.
func (m *made) wrap(class uint32, seed byte) (keybag.FileKey, []byte) {
	m.Helper()
	var key keybag.FileKey
	copy(key[:], foldertest.Noise(seed, 32))
	wrapped, err := m.keys.Wrap(class, key)
	if err != nil {
		m.Fatal(err)
	}
	return key, wrapped
}

// write writes the folder and returns its path.
func (m *made) write() string {
	m.Helper()
	dir := filepath.Join(m.TempDir(), foldertest.UDID)
	put := func(name string, b []byte) {
		m.Helper()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			m.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			m.Fatal(err)
		}
	}
	var recs []manifest.Record
	for i, f := range m.files {
		rec := f.rec
		rec.Mode, rec.Size = 0o100644, int64(len(f.content))
		blob := f.content
		if m.encrypted {
			key, wrapped := m.wrap(rec.ProtectionClass, byte(100+i))
			blob, rec.EncryptionKey = m.encrypt(key, blob), wrapped
		}
		if f.sent != nil {
			blob = f.sent(bytes.Clone(blob))
		}
		if rec.HasDigest = f.digest; f.digest {
			rec.Digest = sha1.Sum(blob)
		}
		rec = manifesttest.Row(rec)
		if f.row != nil {
			f.row(&rec)
		}
		if f.blob != nil {
			blob = f.blob(bytes.Clone(blob))
		}
		recs = append(recs, rec)
		if f.blob == nil || blob != nil {
			put(mobilesync.BlobPath(mobilesync.Hashed, manifesttest.FileID(rec.Domain, rec.RelativePath)), blob)
		}
	}
	name := filepath.Join(m.TempDir(), "Manifest.db")
	manifesttest.WriteDB(m, name, manifesttest.Schema, manifesttest.Insert(recs))
	if len(m.sql) > 0 {
		db, err := sql.Open("sqlite", "file:"+name+"?_pragma=journal_mode(off)")
		if err != nil {
			m.Fatal(err)
		}
		for _, q := range m.sql {
			if _, err := db.Exec(q); err != nil {
				m.Fatalf("%s: %v", q, err)
			}
		}
		db.Close()
	}
	db, err := os.ReadFile(name)
	if err != nil {
		m.Fatal(err)
	}
	db = append(db, m.tail...)
	if m.encrypted && !m.plainDB {
		key, wrapped := m.wrap(4, 99)
		db = m.encrypt(key, db)
		if m.manifest["ManifestKey"] == nil {
			m.manifest["ManifestKey"] = wrapped
		}
	}
	put("Manifest.db", db)
	for name, v := range map[string]map[string]any{"Manifest.plist": m.manifest, "Info.plist": m.info, "Status.plist": m.status} {
		if v == nil {
			continue
		}
		b, err := plist.Marshal(v, plist.BinaryFormat)
		if err != nil {
			m.Fatal(err)
		}
		put(name, b)
	}
	for name, b := range m.more {
		put(name, b)
	}
	return dir
}
