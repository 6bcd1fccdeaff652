// Package foldertest makes small backup folders for tests, and compares folders.
//
// Making and importing a Folder takes milliseconds, so tests can do it hundreds
// of times. Functions that take a testing.TB end the test when they fail.
package foldertest

import (
	"bytes"
	"crypto/sha1"
	"database/sql"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"howett.net/plist"
	_ "modernc.org/sqlite" // the driver of database/sql
)

// UDID is the device of all folders.
const UDID = "00008110-000A1234567890AB"

// Folder is a backup folder. Put changes a blob as devices do: it renames a new file
// over the old one.
type Folder struct {
	testing.TB
	Dir     string
	Records map[string]Record // by domain and path
}

// Record is the manifest's data about a file.
type Record struct {
	Domain, Path string
	ModTime      int64
	Size         int
}

// New returns a folder with some files.
func New(t testing.TB) *Folder {
	m := &Folder{TB: t, Dir: filepath.Join(t.TempDir(), UDID), Records: map[string]Record{}}
	m.Check(os.MkdirAll(filepath.Join(m.Dir, "00"), 0o755)) // a folder that stays empty
	for i := range 9 {
		m.Put("HomeDomain", fmt.Sprintf("Library/Preferences/p%d.plist", i), bytes.Repeat(fmt.Appendf(nil, "setting %d. ", i), 20+i))
	}
	m.Put("CameraRollDomain", "Media/DCIM/a.jpg", Noise(1, 30<<10))
	m.Put("CameraRollDomain", "Media/DCIM/b.jpg", Noise(2, 25<<10))
	m.Put("HomeDomain", "Library/SMS/sms.db", append([]byte("SQLite format 3\x00"), Noise(3, 70<<10)...))
	m.Put("HomeDomain", "empty", nil)
	m.Finish(1)
	return m
}

// Noise returns content that does not compress.
func Noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, 77}).Read(b)
	return b
}

// Check ends the test if err is not nil.
func (m *Folder) Check(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// FileID returns the name of a blob.
func FileID(domain, path string) string {
	sum := sha1.Sum([]byte(domain + "-" + path))
	return hex.EncodeToString(sum[:])
}

// Blob returns the path of a file's blob.
func (m *Folder) Blob(domain, path string) string {
	id := FileID(domain, path)
	return filepath.Join(m.Dir, id[:2], id)
}

// Put creates or replaces a file of the device.
func (m *Folder) Put(domain, path string, content []byte) {
	m.Helper()
	name := m.Blob(domain, path)
	m.Check(os.MkdirAll(filepath.Dir(name), 0o755))
	m.Check(os.WriteFile(name+".new", content, 0o644))
	m.Check(os.Rename(name+".new", name))
	old := m.Records[domain+"-"+path]
	m.Records[domain+"-"+path] = Record{domain, path, old.ModTime + 1000, len(content)}
}

// Write writes a file in place, by its path in the folder.
func (m *Folder) Write(name string, content []byte) {
	m.Helper()
	path := filepath.Join(m.Dir, name)
	m.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	m.Check(os.WriteFile(path, content, 0o644))
}

// Finish writes the manifest and the property lists of a backup made on
// this day of January 2026.
func (m *Folder) Finish(day int) {
	m.Helper()
	date := time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC)
	m.Manifest()
	m.Plist("Manifest.plist", plist.BinaryFormat, map[string]any{
		"Version": "10.0", "Date": date, "IsEncrypted": false, "WasPasscodeSet": true, "BackupKeyBag": []byte("bag"),
		"Lockdown": map[string]any{
			"UniqueDeviceID": UDID, "DeviceName": "Mini 📱", "ProductType": "iPhone14,5",
			"ProductVersion": "18.2", "BuildVersion": "22C152", "SerialNumber": "MINI",
		},
	})
	m.Plist("Info.plist", plist.XMLFormat, map[string]any{"Device Name": "Mini 📱", "Target Identifier": UDID, "Last Backup Date": date})
	m.Status("finished", date)
}

// Status writes Status.plist.
func (m *Folder) Status(state string, date time.Time) {
	m.Helper()
	m.Plist("Status.plist", plist.BinaryFormat, map[string]any{
		"Version": "3.3", "UUID": fmt.Sprintf("RUN-%d", date.Unix()), "Date": date,
		"BackupState": "new", "SnapshotState": state, "IsFullBackup": false,
	})
}

// Plist writes a property list.
func (m *Folder) Plist(name string, format int, v any) {
	m.Helper()
	b, err := plist.Marshal(v, format)
	m.Check(err)
	m.Write(name, b)
}

// Manifest writes Manifest.db.
func (m *Folder) Manifest() {
	m.Helper()
	name := filepath.Join(m.Dir, "Manifest.db")
	m.Check(os.RemoveAll(name))
	db, err := sql.Open("sqlite", "file:"+name)
	m.Check(err)
	defer db.Close()
	exec := func(query string, args ...any) {
		m.Helper()
		_, err := db.Exec(query, args...)
		m.Check(err)
	}
	exec("PRAGMA journal_mode=OFF")
	exec("CREATE TABLE Files (fileID TEXT PRIMARY KEY, domain TEXT, relativePath TEXT, flags INTEGER, file BLOB)")
	exec("CREATE TABLE Properties (key TEXT PRIMARY KEY, value BLOB)")
	exec("BEGIN")
	for _, r := range m.Records {
		exec("INSERT INTO Files VALUES (?,?,?,1,?)", FileID(r.Domain, r.Path), r.Domain, r.Path, m.Archive(r))
	}
	exec("COMMIT")
}

// Archive encodes a record as devices do.
func (m *Folder) Archive(r Record) []byte {
	m.Helper()
	b, err := plist.Marshal(map[string]any{
		"$version": 100000, "$archiver": "NSKeyedArchiver", "$top": map[string]any{"root": plist.UID(1)},
		"$objects": []any{
			"$null",
			map[string]any{
				"$class": plist.UID(3), "RelativePath": plist.UID(2), "LastModified": r.ModTime, "LastStatusChange": r.ModTime, "Birth": 5,
				"Size": r.Size, "Mode": 0o100644, "Flags": 0, "UserID": 501, "GroupID": 501, "InodeNumber": 7, "ProtectionClass": 3,
			},
			r.Path,
			map[string]any{"$classname": "MBFile", "$classes": []any{"MBFile", "NSObject"}},
		},
	}, plist.BinaryFormat)
	m.Check(err)
	return b
}
