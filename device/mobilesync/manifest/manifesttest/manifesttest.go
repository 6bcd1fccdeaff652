// Package manifesttest makes manifests for tests, independently of the code that
// reads them.
package manifesttest

import (
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

	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

type (
	// Dict is a dictionary with its keys in order.
	Dict []Pair
	// Pair is a key, which is a string, and its value.
	Pair [2]any
	// UID is a reference in a keyed archive.
	UID uint16
)

// Plist returns a binary property list in which no object is shared and
// references have two bytes.
func Plist(root any) []byte {
	var w plistWriter
	w.out = []byte("bplist00")
	w.object(root)
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

// object writes v and its elements, and returns the object number of v. In a container
// it reserves room for the references to the elements, and fills it while it writes the
// elements.
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
	case UID:
		w.out = append(w.out, 0x81)
		w.out = binary.BigEndian.AppendUint16(w.out, uint16(v))
	case []any:
		w.sized(0xa0, len(v))
		at := len(w.out)
		w.out = append(w.out, make([]byte, 2*len(v))...)
		for i, item := range v {
			w.refer(at+2*i, w.object(item))
		}
	case Dict:
		w.sized(0xd0, len(v))
		at := len(w.out)
		w.out = append(w.out, make([]byte, 4*len(v))...)
		for i, p := range v {
			w.refer(at+2*i, w.object(p[0]))
		}
		for i, p := range v {
			w.refer(at+2*(len(v)+i), w.object(p[1]))
		}
	default:
		panic(fmt.Sprintf("a property list cannot hold a %T", v))
	}
	return n
}

// Archive wraps an MBFile dictionary as NSKeyedArchiver does. The objects in more
// are numbered from 2 on.
func Archive(file Dict, more ...any) []byte {
	return Plist(Dict{
		{"$version", 100000},
		{"$objects", append([]any{"$null", file}, more...)},
		{"$archiver", "NSKeyedArchiver"},
		{"$top", Dict{{"root", UID(1)}}},
	})
}

// MBFile returns the description of rec as a device writes it.
func MBFile(rec manifest.Record, extra ...Pair) []byte {
	more := []any{rec.RelativePath}
	ref := func(v any) UID {
		more = append(more, v)
		return UID(len(more) + 1)
	}
	d := Dict{
		{"LastModified", int(rec.ModTime)},
		{"Flags", int(rec.BSDFlags)},
		{"GroupID", int(rec.GroupID)},
		{"LastStatusChange", int(rec.ChangeTime)},
		{"RelativePath", UID(2)},
		{"Birth", int(rec.Birth)},
		{"Size", int(rec.Size)},
		{"Mode", int(rec.Mode)},
		{"UserID", int(rec.UserID)},
		{"InodeNumber", int(rec.Inode)},
		{"ProtectionClass", int(rec.ProtectionClass)},
	}
	if rec.EncryptionKey != nil {
		class := ref(Dict{{"$classname", "NSMutableData"}, {"$classes", []any{"NSMutableData", "NSData", "NSObject"}}})
		d = append(d, Pair{"EncryptionKey", ref(Dict{{"NS.data", rec.EncryptionKey}, {"$class", class}})})
	}
	if rec.HasDigest {
		d = append(d, Pair{"Digest", ref(rec.Digest[:])})
	}
	if rec.Target != "" {
		d = append(d, Pair{"Target", ref(rec.Target)})
	}
	d = append(d, Pair{"$class", ref(Dict{{"$classname", "MBFile"}, {"$classes", []any{"MBFile", "NSObject"}}})})
	return Archive(append(d, extra...), more...)
}

// Schema is the schema of a Manifest.db.
const Schema = `
PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA user_version=2;
CREATE TABLE Files (fileID TEXT PRIMARY KEY, domain TEXT, relativePath TEXT, flags INTEGER, file BLOB);
CREATE INDEX FilesDomainIdx ON Files(domain);
CREATE INDEX FilesRelativePathIdx ON Files(relativePath);
CREATE INDEX FilesFlagsIdx ON Files(flags);
CREATE TABLE Properties (key TEXT PRIMARY KEY, value BLOB);`

// WriteDB writes an SQLite database in the form that devices leave: marked for
// write-ahead logging, without side files.
func WriteDB(t testing.TB, path, schema string, fill func(tx *sql.Tx) error) {
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

// FileID returns the name of the blob of a file.
func FileID(domain, path string) [20]byte { return sha1.Sum([]byte(domain + "-" + path)) }

// Row returns rec with all fields set that depend on domain, path and mode.
func Row(rec manifest.Record) manifest.Record {
	rec.FileID, rec.HasFileID, rec.HasMeta = FileID(rec.Domain, rec.RelativePath), true, true
	switch rec.Mode & 0o170000 {
	case 0o100000:
		rec.Flags = manifest.FlagFile
	case 0o040000:
		rec.Flags = manifest.FlagFolder
	case 0o120000:
		rec.Flags = manifest.FlagSymlink
	}
	return rec
}

// Rows returns rows of every kind.
func Rows() []manifest.Record {
	return []manifest.Record{
		Row(manifest.Record{Domain: "HomeDomain", Mode: 0o40755, ModTime: 1, ChangeTime: 2, Birth: 3}),
		Row(manifest.Record{Domain: "HomeDomain", RelativePath: "Library", Mode: 0o40755}),
		Row(manifest.Record{Domain: "HomeDomain", RelativePath: "Library/link", Mode: 0o120755, Target: "/var/tmp"}),
		Row(manifest.Record{
			Domain: "HomeDomain", RelativePath: "Library/a.plist", Mode: 0o100644, Size: 5, ModTime: 1.7e9, ChangeTime: 1.6e9,
			Birth: -1, UserID: 501, GroupID: 502, Inode: 1 << 63, BSDFlags: 128, ProtectionClass: 3, HasDigest: true, Digest: [20]byte{1, 2},
		}),
		Row(manifest.Record{Domain: "AppDomain-a.b", RelativePath: "Documents/Gäste.txt", Mode: 0o100600, Size: 0}),
		Row(manifest.Record{Domain: "AppDomain-a.b", RelativePath: "Documents/key", Mode: 0o100600, Size: 7, EncryptionKey: make([]byte, 44)}),
	}
}

// Insert returns a function for WriteDB that inserts rows.
func Insert(recs []manifest.Record) func(tx *sql.Tx) error {
	return func(tx *sql.Tx) error {
		for _, r := range recs {
			_, err := tx.Exec("INSERT INTO Files VALUES(?,?,?,?,?)", hex.EncodeToString(r.FileID[:]), r.Domain, r.RelativePath, r.Flags, MBFile(r))
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// Check verifies the order and the index of records.
func Check(t testing.TB, records *manifest.Records) {
	t.Helper()
	var last manifest.Record
	for i, rec := range records.All() {
		if i > 0 && (rec.Domain < last.Domain || rec.Domain == last.Domain && rec.RelativePath < last.RelativePath) {
			t.Fatalf("row %d (%s, %s) is out of order", i, rec.Domain, rec.RelativePath)
		}
		if rec.HasFileID {
			if got, ok := records.ByFileID(rec.FileID); !ok || got != i && records.At(got).FileID != rec.FileID {
				t.Fatalf("row %d is found at %d, %v", i, got, ok)
			}
		}
		last = rec
	}
	if _, ok := records.ByFileID([20]byte{1, 2, 3}); ok {
		t.Fatal("a missing row was found")
	}
}
