package ingest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
	"howett.net/plist"
	_ "modernc.org/sqlite"
)

// encryptedBackup is a generated encrypted backup whose manifest a test rewrites.
type encryptedBackup struct {
	t    testing.TB
	dir  string
	keys *keybag.Keys
	db   *sql.DB
	file string // the decrypted Manifest.db, beside the folder

	manifest map[string]any // Manifest.plist
}

func newEncryptedBackup(t testing.TB, seed uint64) *encryptedBackup {
	t.Helper()
	s := &encryptedBackup{t: t, dir: encryptedFolder(t, seed), file: filepath.Join(t.TempDir(), "plain.db")}
	_, err := plist.Unmarshal(s.read(mobilesync.ManifestPlist), &s.manifest)
	s.check(err)
	bag, err := keybag.Parse(s.manifest["BackupKeyBag"].([]byte))
	s.check(err)
	s.keys, err = bag.Unlock(context.Background(), []byte(synthetic.DefaultPassword), nil)
	s.check(err)
	plain := s.decrypt(s.read(mobilesync.ManifestDB), s.manifest["ManifestKey"].([]byte))
	s.check(os.WriteFile(s.file, plain, 0o600))
	s.db, err = sql.Open("sqlite", "file:"+filepath.ToSlash(s.file)+"?_pragma=journal_mode(DELETE)")
	s.check(err)
	t.Cleanup(func() { s.db.Close() })
	return s
}

func (s *encryptedBackup) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *encryptedBackup) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, filepath.FromSlash(name)))
	s.check(err)
	return b
}

func (s *encryptedBackup) write(name string, b []byte) {
	s.t.Helper()
	s.check(os.WriteFile(filepath.Join(s.dir, filepath.FromSlash(name)), b, 0o600))
}

func (s *encryptedBackup) decrypt(encrypted, wrapped []byte) []byte {
	s.t.Helper()
	key, err := s.keys.Unwrap(wrapped)
	s.check(err)
	plain, err := io.ReadAll(keybag.NewDecrypter(bytes.NewReader(encrypted), key))
	s.check(err)
	return plain
}

func (s *encryptedBackup) encrypt(plain []byte, key keybag.FileKey) []byte {
	s.t.Helper()
	var out bytes.Buffer
	w := keybag.NewEncrypter(&out, key)
	_, err := w.Write(plain)
	s.check(err)
	s.check(w.Close())
	return out.Bytes()
}

func (s *encryptedBackup) exec(query string, args ...any) {
	s.t.Helper()
	_, err := s.db.Exec(query, args...)
	s.check(err)
}

// files returns the fileIDs of files that have a key and a blob of more than 32
// bytes.
func (s *encryptedBackup) files() []string {
	s.t.Helper()
	rows, err := s.db.Query(`SELECT fileID, file FROM Files WHERE flags = 1 AND domain LIKE 'AppDomain-%' AND relativePath LIKE '%.plist' ORDER BY fileID`)
	s.check(err)
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		var meta []byte
		s.check(rows.Scan(&id, &meta))
		if info, err := os.Stat(filepath.Join(s.dir, id[:2], id)); err == nil && info.Size() > 32 {
			ids = append(ids, id)
		}
	}
	s.check(rows.Err())
	return ids
}

// archive is an MBFile that can be changed.
type archive struct {
	all  map[string]any
	objs []any
	root map[string]any
}

func (s *encryptedBackup) archive(id string) *archive {
	s.t.Helper()
	var meta []byte
	s.check(s.db.QueryRow(`SELECT file FROM Files WHERE fileID = ?`, id).Scan(&meta))
	a := &archive{}
	_, err := plist.Unmarshal(meta, &a.all)
	s.check(err)
	a.objs = a.all["$objects"].([]any)
	a.root = a.objs[1].(map[string]any)
	return a
}

func (s *encryptedBackup) putArchive(id string, a *archive) {
	s.t.Helper()
	a.all["$objects"] = a.objs
	meta, err := plist.Marshal(a.all, plist.BinaryFormat)
	s.check(err)
	s.exec(`UPDATE Files SET file = ? WHERE fileID = ?`, meta, id)
}

func (a *archive) key() []byte {
	return a.objs[a.root["EncryptionKey"].(plist.UID)].(map[string]any)["NS.data"].([]byte)
}

func (a *archive) setKey(key []byte) {
	a.objs[a.root["EncryptionKey"].(plist.UID)].(map[string]any)["NS.data"] = key
}

// finish writes the manifest back. form gets the plain database and a new key,
// and returns the content of Manifest.db.
func (s *encryptedBackup) finish(form func(plain []byte, key keybag.FileKey) []byte) {
	s.t.Helper()
	plain, err := os.ReadFile(s.file)
	s.check(err)
	key := keybag.FileKey(bytes.Repeat([]byte{0x4d, byte(len(plain) >> 12)}, 16))
	wrapped, err := s.keys.Wrap(keybag.ClassNone, key)
	s.check(err)
	s.manifest["ManifestKey"] = wrapped
	list, err := plist.Marshal(s.manifest, plist.BinaryFormat)
	s.check(err)
	s.write(mobilesync.ManifestPlist, list)
	s.write(mobilesync.ManifestDB, form(plain, key))
}

func blobOf(id string) string { return id[:2] + "/" + id }

// importTwice imports the folder into a new repository twice. The second import
// must use all content of the first and return the same result. Both snapshots
// must be restored exactly.
func (s *encryptedBackup) importTwice(want func(t testing.TB, r *repo.Repo, res *Result)) {
	t := s.t
	t.Helper()
	be := memory.New()
	r := createRepo(t, be)
	contents := foldertest.MustRead(t, s.dir)
	for run := range 2 {
		res := importUnlocked(t, r, s.dir, synthetic.DefaultPassword, Options{Workers: 1})
		if run == 1 && res.ReadFiles > 0 {
			t.Errorf("%d files were read again", res.ReadFiles)
		}
		want(t, r, res)
		if err := materializeSame(mustOpen(t, be, seed(7+run)), res.Snapshot, t.TempDir(), contents); err != nil {
			t.Error(err)
		}
	}
	report, err := mustOpen(t, be, seed(9)).Check(context.Background(), repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() {
		t.Errorf("check: %+v, %v", report, err)
	}
}

func wantRaw(t testing.TB, res *Result, want map[RawReason]int64) {
	t.Helper()
	if !maps.Equal(res.Raw, want) {
		t.Errorf("raw files: %v, want %v", res.Raw, want)
	}
}

// TestOddRows imports a manifest with unusual rows of all kinds.
func TestOddRows(t *testing.T) {
	t.Parallel()
	s := newEncryptedBackup(t, 21)
	ids := s.files()
	if len(ids) < 12 {
		t.Fatalf("only %d files", len(ids))
	}

	// An unencrypted file; old systems left some unencrypted.
	a := s.archive(ids[0])
	s.write(blobOf(ids[0]), s.decrypt(s.read(blobOf(ids[0])), a.key()))
	delete(a.root, "EncryptionKey")
	s.putArchive(ids[0], a)

	// A wrapped key of an undocumented form.
	a = s.archive(ids[1])
	a.setKey(append(bytes.Clone(a.key()), make([]byte, 172-44)...))
	s.putArchive(ids[1], a)

	// A key of a class that the keybag lacks.
	a = s.archive(ids[2])
	key := bytes.Clone(a.key())
	binary.LittleEndian.PutUint32(key, 17)
	a.setKey(key)
	a.root["ProtectionClass"] = 17
	s.putArchive(ids[2], a)

	// A key of a class that is bound to the device.
	a = s.archive(ids[3])
	key = bytes.Clone(a.key())
	binary.LittleEndian.PutUint32(key, keybag.ClassRecovery)
	a.setKey(key)
	s.putArchive(ids[3], a)

	// A wrapped key that is damaged.
	a = s.archive(ids[4])
	key = bytes.Clone(a.key())
	key[20] ^= 1
	a.setKey(key)
	s.putArchive(ids[4], a)

	// A description that makes no sense, and a missing one.
	s.exec(`UPDATE Files SET file = ? WHERE fileID = ?`, []byte("bplist00 but nothing that follows"), ids[5])
	s.exec(`UPDATE Files SET file = NULL WHERE fileID = ?`, ids[6])

	// The key of another file: the padding is wrong, except by chance in 1 of 256
	// cases.
	a, other := s.archive(ids[7]), s.archive(ids[8])
	a.setKey(bytes.Clone(other.key()))
	s.putArchive(ids[7], a)

	// A size that differs from the size that the padding implies: the padding
	// decides.
	a = s.archive(ids[9])
	a.root["Size"] = 12345
	s.putArchive(ids[9], a)

	// Two rows with the same encrypted bytes, and a third with the same content but
	// another key.
	twin := s.addFile("AppDomain-com.example.twins", "a.bin", s.archive(ids[8]), s.read(blobOf(ids[8])))
	content := s.decrypt(s.read(blobOf(ids[8])), s.archive(ids[8]).key())
	a = s.archive(ids[8])
	fresh := keybag.FileKey(bytes.Repeat([]byte("own key!"), 4))
	wrapped, err := s.keys.Wrap(keybag.ClassUntilFirstUnlock, fresh)
	s.check(err)
	a.setKey(wrapped)
	third := s.addFile("AppDomain-com.example.twins", "b.bin", a, s.encrypt(content, fresh))

	// The same file twice, once with its ID as a BLOB.
	s.exec(`INSERT INTO Files SELECT CAST(fileID AS BLOB), domain, relativePath, flags, file FROM Files WHERE fileID = ?`, ids[10])
	// A row with a path that leads out of the folder. Its blob is missing.
	s.addRow("HomeDomain", "../../../etc/passwd", s.archive(ids[11]))

	s.finish(s.encrypt)
	s.importTwice(func(t testing.TB, r *repo.Repo, res *Result) {
		wantRaw(t, res, map[RawReason]int64{RawNoKey: 3, RawUnsupported: 1, RawNoClass: 2, RawBadKey: 1, RawPadding: 1})
		if res.Anomalies.BadMeta != 1 || res.Anomalies.NullMeta != 1 || res.Anomalies.BlobFileID != 1 || res.Anomalies.DuplicateFileID != 1 {
			t.Errorf("odd rows: %+v", res.Anomalies)
		}
		if res.Report.Missing.Count != 1 || res.Report.Size.Count < 1 || res.Report.Extra.Count != 0 {
			t.Errorf("report: %+v", res.Report)
		}
		entries := map[string]tree.Entry{}
		s.check(r.Walk(context.Background(), res.Snapshot, "", func(e *tree.Entry) error {
			entries[e.Path] = *e
			return nil
		}))
		one, two, three := entries[blobOf(ids[8])], entries[blobOf(twin)], entries[blobOf(third)]
		if one.Encryption == nil || two.Encryption == nil || three.Encryption == nil || *one.Encryption != *two.Encryption || *one.Encryption == *three.Encryption {
			t.Error("the seals of equal content are wrong")
		}
		if len(one.Content.IDs) == 0 || one.Content.IDs[0] != two.Content.IDs[0] || one.Content.IDs[0] != three.Content.IDs[0] {
			t.Error("equal content was stored more than once")
		}
		if e := entries[blobOf(ids[9])]; e.Encryption == nil {
			t.Error("a file whose size differs from its row was stored encrypted")
		}
	})
}

// addRow adds a row with the description of another file. addFile also adds a
// blob.
func (s *encryptedBackup) addRow(domain, path string, like *archive) string {
	s.t.Helper()
	sum := sha1.Sum([]byte(domain + "-" + path))
	id := hex.EncodeToString(sum[:])
	like.objs[like.root["RelativePath"].(plist.UID)] = path
	s.exec(`INSERT INTO Files VALUES (?, ?, ?, 1, x'')`, id, domain, path)
	s.putArchive(id, like)
	return id
}

func (s *encryptedBackup) addFile(domain, path string, like *archive, blob []byte) string {
	s.t.Helper()
	id := s.addRow(domain, path, like)
	s.write(blobOf(id), blob)
	return id
}

// TestOddManifests imports Manifest.db in forms that some tools write.
func TestOddManifests(t *testing.T) {
	cbc := func(s *encryptedBackup) func([]byte, keybag.FileKey) []byte {
		return func(plain []byte, key keybag.FileKey) []byte {
			encrypted := s.encrypt(plain, key)
			return encrypted[:len(encrypted)-keybag.BlockSize]
		}
	}
	for name, test := range map[string]struct {
		prepare func(*encryptedBackup)
		form    func(*encryptedBackup) func([]byte, keybag.FileKey) []byte
		raw     map[RawReason]int64
	}{
		"without padding": {form: cbc, raw: map[RawReason]int64{RawPadding: 1}},
		// The last byte of the database looks like one byte of padding. Without this
		// byte, the last row cannot be read.
		"without padding, but the end looks like padding": {
			prepare: func(s *encryptedBackup) {
				id := s.files()[0]
				for i := range 20 { // the first rows may use free pages instead of the last one
					s.addFile("AppDomain-com.example.last", strconv.Itoa(i), s.endingInOne(id, strconv.Itoa(i)), s.read(blobOf(id)))
					b, err := os.ReadFile(s.file)
					s.check(err)
					if b[len(b)-1] == 1 {
						return
					}
				}
				s.t.Fatal("the database never ends in 1")
			},
			form: cbc,
		},
		"opened in place": {
			form: func(*encryptedBackup) func([]byte, keybag.FileKey) []byte {
				return func(plain []byte, _ keybag.FileKey) []byte { return plain }
			},
		},
		"opened in place with its padding": {
			form: func(*encryptedBackup) func([]byte, keybag.FileKey) []byte {
				return func(plain []byte, _ keybag.FileKey) []byte {
					return append(plain, bytes.Repeat([]byte{keybag.BlockSize}, keybag.BlockSize)...)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && test.prepare == nil && test.raw == nil {
				t.Skip("it is one of several forms")
			}
			t.Parallel()
			s := newEncryptedBackup(t, 21)
			if test.prepare != nil {
				test.prepare(s)
			}
			s.finish(test.form(s))
			s.importTwice(func(t testing.TB, _ *repo.Repo, res *Result) {
				wantRaw(t, res, test.raw)
				if res.Decrypted < 100 || !res.Snapshot.Unlocked || res.Report == nil && res.ReadFiles > 0 {
					t.Errorf("%d files stored decrypted, unlocked %v", res.Decrypted, res.Snapshot.Unlocked)
				}
			})
		})
	}
}

// endingInOne returns an archive that fills a page and whose last byte is 1. A
// property list ends in the position of its offset table, so a suitable length
// gives that byte.
func (s *encryptedBackup) endingInOne(id, path string) *archive {
	s.t.Helper()
	a := s.archive(id)
	a.objs[a.root["RelativePath"].(plist.UID)] = path
	a.objs = append(a.objs, nil)
	for n := 2600; n < 3400; n++ {
		a.objs[len(a.objs)-1] = make([]byte, n)
		a.all["$objects"] = a.objs
		meta, err := plist.Marshal(a.all, plist.BinaryFormat)
		s.check(err)
		if meta[len(meta)-1] == 1 {
			return a
		}
	}
	s.t.Fatal("no length fits")
	return nil
}

// TestFormChangesWithThePassword imports a folder locked, unlocked, locked and
// unlocked again. An import with the password stores all files decrypted, one
// without it as they are. Every snapshot can be restored. The manifest of one of
// the two folders can be read without the password.
func TestFormChangesWithThePassword(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes eight imports")
	}
	for name, inPlace := range map[string]bool{"encrypted manifest": false, "manifest decrypted in place": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newEncryptedBackup(t, 21)
			if inPlace {
				s.finish(func(plain []byte, _ keybag.FileKey) []byte { return plain })
			}
			be := memory.New()
			r := createRepo(t, be)
			contents := foldertest.MustRead(t, s.dir)
			before := int64(0)
			for run := range 4 {
				var res *Result
				unlock := run%2 == 1
				if unlock {
					res = importUnlocked(t, r, s.dir, synthetic.DefaultPassword, Options{Workers: 1})
				} else {
					res = mustImport(t, r, s.dir, Options{Workers: 1, Locked: true})
				}
				decrypted := int64(0)
				s.check(r.Walk(context.Background(), res.Snapshot, "", func(e *tree.Entry) error {
					if e.Encryption != nil {
						decrypted++
					}
					return nil
				}))
				if unlock != res.Snapshot.Unlocked || (decrypted > 100) != unlock || decrypted != res.Decrypted || len(res.Raw) > 0 {
					t.Errorf("run %d: %d entries are stored decrypted, %d counted, raw files %v", run, decrypted, res.Decrypted, res.Raw)
				}
				if run >= 2 && res.Snapshot.StoredBytes > res.Bytes/20 {
					t.Errorf("run %d: %d bytes were added for content that is there", run, res.Snapshot.StoredBytes)
				}
				if unlock {
					if before != 0 && before != decrypted {
						t.Errorf("run %d: %d entries are stored decrypted, %d before", run, decrypted, before)
					}
					before = decrypted
				}
				if err := materializeSame(mustOpen(t, be, seed(40+run)), res.Snapshot, t.TempDir(), contents); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
