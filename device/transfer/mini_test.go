package transfer

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
	_ "modernc.org/sqlite"
)

const miniUDID = "00008110-000A1234567890AB"

// mini is a backup folder made by hand, small enough to be imported hundreds
// of times. Its blobs are changed as a device does it: a new file is renamed
// over the old one.
type mini struct {
	t    testing.TB
	dir  string
	rows map[string]row // by domain and path
}

type row struct {
	domain, path string
	mtime        int64
	size         int
}

func newMini(t testing.TB) *mini {
	m := &mini{t: t, dir: filepath.Join(t.TempDir(), miniUDID), rows: map[string]row{}}
	m.check(os.MkdirAll(filepath.Join(m.dir, "00"), 0o755)) // one that stays empty
	for i := range 9 {
		m.put("HomeDomain", fmt.Sprintf("Library/Preferences/p%d.plist", i), bytes.Repeat(fmt.Appendf(nil, "setting %d. ", i), 20+i))
	}
	m.put("CameraRollDomain", "Media/DCIM/a.jpg", noise(1, 30<<10))
	m.put("CameraRollDomain", "Media/DCIM/b.jpg", noise(2, 25<<10))
	m.put("HomeDomain", "Library/SMS/sms.db", append([]byte("SQLite format 3\x00"), noise(3, 70<<10)...))
	m.put("HomeDomain", "empty", nil)
	m.finish(1)
	return m
}

// noise is content that does not compress.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, 77}).Read(b)
	return b
}

func (m *mini) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func fileID(domain, path string) string {
	sum := sha1.Sum([]byte(domain + "-" + path))
	return hex.EncodeToString(sum[:])
}

// blob is where the content of a file stands on disk.
func (m *mini) blob(domain, path string) string {
	id := fileID(domain, path)
	return filepath.Join(m.dir, id[:2], id)
}

// put gives a file of the device new content.
func (m *mini) put(domain, path string, content []byte) {
	m.t.Helper()
	name := m.blob(domain, path)
	m.check(os.MkdirAll(filepath.Dir(name), 0o755))
	m.check(os.WriteFile(name+".new", content, 0o644))
	m.check(os.Rename(name+".new", name))
	old := m.rows[domain+"-"+path]
	m.rows[domain+"-"+path] = row{domain, path, old.mtime + 1000, len(content)}
}

// write puts a file beside the manifest, or changes one in place.
func (m *mini) write(name string, content []byte) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	m.check(os.MkdirAll(filepath.Dir(path), 0o755))
	m.check(os.WriteFile(path, content, 0o644))
}

// finish writes the manifests of a day of January 2026.
func (m *mini) finish(day int) {
	m.t.Helper()
	date := time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC)
	m.manifest()
	m.plist("Manifest.plist", plist.BinaryFormat, map[string]any{
		"Version": "10.0", "Date": date, "IsEncrypted": false, "WasPasscodeSet": true, "BackupKeyBag": []byte("bag"),
		"Lockdown": map[string]any{
			"UniqueDeviceID": miniUDID, "DeviceName": "Mini 📱", "ProductType": "iPhone14,5",
			"ProductVersion": "18.2", "BuildVersion": "22C152", "SerialNumber": "MINI",
		},
	})
	m.plist("Info.plist", plist.XMLFormat, map[string]any{"Device Name": "Mini 📱", "Target Identifier": miniUDID, "Last Backup Date": date})
	m.status("finished", date)
}

func (m *mini) status(state string, date time.Time) {
	m.t.Helper()
	m.plist("Status.plist", plist.BinaryFormat, map[string]any{
		"Version": "3.3", "UUID": fmt.Sprintf("RUN-%d", date.Unix()), "Date": date,
		"BackupState": "new", "SnapshotState": state, "IsFullBackup": false,
	})
}

func (m *mini) plist(name string, format int, v any) {
	m.t.Helper()
	b, err := plist.Marshal(v, format)
	m.check(err)
	m.write(name, b)
}

// manifest writes Manifest.db anew.
func (m *mini) manifest() {
	m.t.Helper()
	name := filepath.Join(m.dir, "Manifest.db")
	m.check(os.RemoveAll(name))
	db, err := sql.Open("sqlite", "file:"+name)
	m.check(err)
	defer db.Close()
	exec := func(query string, args ...any) {
		m.t.Helper()
		_, err := db.Exec(query, args...)
		m.check(err)
	}
	exec("PRAGMA journal_mode=OFF")
	exec("CREATE TABLE Files (fileID TEXT PRIMARY KEY, domain TEXT, relativePath TEXT, flags INTEGER, file BLOB)")
	exec("CREATE TABLE Properties (key TEXT PRIMARY KEY, value BLOB)")
	exec("BEGIN")
	for _, r := range m.rows {
		exec("INSERT INTO Files VALUES (?,?,?,1,?)", fileID(r.domain, r.path), r.domain, r.path, m.mbFile(r))
	}
	exec("COMMIT")
}

// mbFile describes a file as the device's archiver does.
func (m *mini) mbFile(r row) []byte {
	m.t.Helper()
	b, err := plist.Marshal(map[string]any{
		"$version": 100000, "$archiver": "NSKeyedArchiver", "$top": map[string]any{"root": plist.UID(1)},
		"$objects": []any{
			"$null",
			map[string]any{
				"$class": plist.UID(3), "RelativePath": plist.UID(2), "LastModified": r.mtime, "LastStatusChange": r.mtime, "Birth": 5,
				"Size": r.size, "Mode": 0o100644, "Flags": 0, "UserID": 501, "GroupID": 501, "InodeNumber": 7, "ProtectionClass": 3,
			},
			r.path,
			map[string]any{"$classname": "MBFile", "$classes": []any{"MBFile", "NSObject"}},
		},
	}, plist.BinaryFormat)
	m.check(err)
	return b
}
