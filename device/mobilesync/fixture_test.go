package mobilesync

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// dict and uid are what the test's plist writer knows beyond Go's own types.
type (
	dict []pair
	pair struct {
		key   string
		value any
	}
	uid uint16
)

// writePlist makes a binary property list. It is for tests: simple, no object
// shared, references of two bytes.
func writePlist(top any) []byte {
	var w plistWriter
	w.out = []byte("bplist00")
	w.object(top)
	table := len(w.out)
	for _, off := range w.offsets {
		w.out = binary.BigEndian.AppendUint32(w.out, uint32(off))
	}
	w.out = append(w.out, 0, 0, 0, 0, 0, 0, 4, 2)
	w.out = binary.BigEndian.AppendUint64(w.out, uint64(len(w.offsets)))
	w.out = binary.BigEndian.AppendUint64(w.out, 0)
	return binary.BigEndian.AppendUint64(w.out, uint64(table))
}

type plistWriter struct {
	out     []byte
	offsets []int
}

func (w *plistWriter) sized(marker byte, n int) {
	if n < 15 {
		w.out = append(w.out, marker|byte(n))
		return
	}
	w.out = append(w.out, marker|0xf, 0x12)
	w.out = binary.BigEndian.AppendUint32(w.out, uint32(n))
}

func (w *plistWriter) refer(at, object int) { binary.BigEndian.PutUint16(w.out[at:], uint16(object)) }

// object writes v and what it holds, and returns its number. Containers reserve
// their references first, as objects may stand in any order.
func (w *plistWriter) object(v any) int {
	n := len(w.offsets)
	w.offsets = append(w.offsets, len(w.out))
	switch v := v.(type) {
	case bool:
		w.out = append(w.out, 0x08)
		if v {
			w.out[len(w.out)-1] = 0x09
		}
	case int:
		w.out = append(w.out, 0x13)
		w.out = binary.BigEndian.AppendUint64(w.out, uint64(v))
	case float64:
		w.out = append(w.out, 0x23)
		w.out = binary.BigEndian.AppendUint64(w.out, math.Float64bits(v))
	case time.Time:
		w.out = append(w.out, 0x33)
		w.out = binary.BigEndian.AppendUint64(w.out, math.Float64bits(float64(v.Unix()-978307200)))
	case []byte:
		w.sized(0x40, len(v))
		w.out = append(w.out, v...)
	case string:
		w.sized(0x50, len(v))
		w.out = append(w.out, v...)
	case uid:
		w.out = append(w.out, 0x81)
		w.out = binary.BigEndian.AppendUint16(w.out, uint16(v))
	case []any:
		w.sized(0xa0, len(v))
		at := len(w.out)
		w.out = append(w.out, make([]byte, 2*len(v))...)
		for i, item := range v {
			w.refer(at+2*i, w.object(item))
		}
	case dict:
		w.sized(0xd0, len(v))
		at := len(w.out)
		w.out = append(w.out, make([]byte, 4*len(v))...)
		for i, p := range v {
			w.refer(at+2*i, w.object(p.key))
		}
		for i, p := range v {
			w.refer(at+2*(len(v)+i), w.object(p.value))
		}
	default:
		panic(fmt.Sprintf("no property list holds a %T", v))
	}
	return n
}

// archive wraps an MBFile dictionary the way NSKeyedArchiver does; more objects
// follow from number 2 on.
func archive(file dict, more ...any) []byte {
	return writePlist(dict{
		{"$version", 100000},
		{"$objects", append([]any{"$null", file}, more...)},
		{"$archiver", "NSKeyedArchiver"},
		{"$top", dict{{"root", uid(1)}}},
	})
}

// mbFile makes the description of rec as a device would.
func mbFile(rec Record, extra ...pair) []byte {
	more := []any{rec.RelativePath}
	ref := func(v any) uid {
		more = append(more, v)
		return uid(len(more) + 1)
	}
	d := dict{
		{"LastModified", int(rec.ModTime)},
		{"Flags", int(rec.BSDFlags)},
		{"GroupID", int(rec.GroupID)},
		{"LastStatusChange", int(rec.ChangeTime)},
		{"RelativePath", uid(2)},
		{"Birth", int(rec.Birth)},
		{"Size", int(rec.Size)},
		{"Mode", int(rec.Mode)},
		{"UserID", int(rec.UserID)},
		{"InodeNumber", int(rec.Inode)},
		{"ProtectionClass", int(rec.ProtectionClass)},
	}
	if rec.EncryptionKey != nil {
		class := ref(dict{{"$classname", "NSMutableData"}, {"$classes", []any{"NSMutableData", "NSData", "NSObject"}}})
		d = append(d, pair{"EncryptionKey", ref(dict{{"NS.data", rec.EncryptionKey}, {"$class", class}})})
	}
	if rec.HasDigest {
		d = append(d, pair{"Digest", ref(rec.Digest[:])})
	}
	if rec.Target != "" {
		d = append(d, pair{"Target", ref(rec.Target)})
	}
	d = append(d, pair{"$class", ref(dict{{"$classname", "MBFile"}, {"$classes", []any{"MBFile", "NSObject"}}})})
	return archive(append(d, extra...), more...)
}

const filesSchema = `
PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA user_version=2;
CREATE TABLE Files (fileID TEXT PRIMARY KEY, domain TEXT, relativePath TEXT, flags INTEGER, file BLOB);
CREATE INDEX FilesDomainIdx ON Files(domain);
CREATE INDEX FilesRelativePathIdx ON Files(relativePath);
CREATE INDEX FilesFlagsIdx ON Files(flags);
CREATE TABLE Properties (key TEXT PRIMARY KEY, value BLOB);`

// buildDB makes an SQLite database in the form that devices leave: marked for
// write-ahead logging, with no side files.
func buildDB(t testing.TB, path, schema string, fill func(tx *sql.Tx) error) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(path)+"?_pragma=journal_mode(off)&_pragma=synchronous(off)")
	must(err)
	db.SetMaxOpenConns(1)
	_, err = db.Exec(schema)
	must(err)
	if fill != nil {
		tx, err := db.Begin()
		must(err)
		must(fill(tx))
		must(tx.Commit())
	}
	must(db.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	_, err = f.WriteAt([]byte{2, 2}, 18)
	must(err)
	must(f.Close())
}

// fileID names the blob of a file.
func fileID(domain, path string) [20]byte { return sha1.Sum([]byte(domain + "-" + path)) }

// makeRow completes rec with what follows from domain, path and mode.
func makeRow(rec Record) Record {
	rec.FileID, rec.HasFileID, rec.HasMeta = fileID(rec.Domain, rec.RelativePath), true, true
	rec.Flags = flagsOf(rec.Mode)
	return rec
}

func insertRecords(recs []Record) func(tx *sql.Tx) error {
	return func(tx *sql.Tx) error {
		for _, r := range recs {
			_, err := tx.Exec("INSERT INTO Files VALUES(?,?,?,?,?)", hex.EncodeToString(r.FileID[:]), r.Domain, r.RelativePath, r.Flags, mbFile(r))
			if err != nil {
				return err
			}
		}
		return nil
	}
}

const testUDID = "00008110-000a1234567890ab"

// backupSpec is a small backup folder to be built; the zero value with rows is
// a complete, plain one.
type backupSpec struct {
	rows             []Record
	encrypted        bool
	info             []byte
	manifest, status dict // replace or add single keys
}

func with(base, change dict) dict {
next:
	for _, c := range change {
		for i := range base {
			if base[i].key == c.key {
				base[i].value = c.value
				continue next
			}
		}
		base = append(base, c)
	}
	return base
}

var testDate = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// build writes the folder, with a blob of Size zero bytes for each file.
func (s backupSpec) build(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "00008110-000A1234567890AB")
	// Some of the 256 folders are enough to have empty ones.
	for _, name := range []string{"00", "aa", "ab", "ff"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	manifest := with(dict{
		{"Version", "10.0"}, {"Date", testDate.Add(-time.Minute)}, {"IsEncrypted", s.encrypted},
		{"BackupKeyBag", []byte("bag")},
		{"Lockdown", dict{{"UniqueDeviceID", testUDID}, {"DeviceName", "Ann's iPhone"}, {"ProductType", "iPhone14,2"},
			{"ProductVersion", "17.5"}, {"BuildVersion", "21F79"}, {"SerialNumber", "F17XXXX"}}},
	}, s.manifest)
	status := with(dict{
		{"Version", "3.3"}, {"UUID", "0D1C-1"}, {"Date", testDate}, {"BackupState", "new"},
		{"SnapshotState", "finished"}, {"IsFullBackup", true},
	}, s.status)
	info := s.info
	if info == nil {
		info = []byte(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict><key>Unique Identifier</key><string>00008110-000A1234567890AB</string>
<key>Last Backup Date</key><date>2024-05-06T07:00:00Z</date><key>Product Name</key><string>iPhone 13 &amp; Pro</string></dict></plist>`)
	}
	put(t, dir, InfoPlist, info)
	put(t, dir, ManifestPlist, writePlist(manifest))
	put(t, dir, StatusPlist, writePlist(status))
	buildDB(t, filepath.Join(dir, ManifestDB), filesSchema, insertRecords(s.rows))
	for i := range s.rows {
		if r := &s.rows[i]; r.IsFile() {
			put(t, dir, BlobPath(Hashed, r.FileID), make([]byte, r.Size))
		}
	}
	return dir
}

func put(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, dir string) *Backup {
	t.Helper()
	b, err := Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}
