package mobilesync

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
)

type dict = manifesttest.Dict

const testUDID = "00008110-000a1234567890ab"

// backupSpec describes a small backup folder. The zero value is complete and not
// encrypted.
type backupSpec struct {
	rows             []manifest.Record
	encrypted        bool
	info             []byte
	manifest, status dict // single keys to replace or add in the property list
}

func with(base, change dict) dict {
next:
	for _, c := range change {
		for i := range base {
			if base[i][0] == c[0] {
				base[i] = c
				continue next
			}
		}
		base = append(base, c)
	}
	return base
}

var testDate = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// build writes the folder. The blob of each file consists of as many zero bytes
// as Size says.
func (s backupSpec) build(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "00008110-000A1234567890AB")
	// Some of the 256 folders are enough; a few stay empty.
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
	put(t, dir, ManifestPlist, manifesttest.Plist(manifest))
	put(t, dir, StatusPlist, manifesttest.Plist(status))
	if len(s.rows) == 0 {
		put(t, dir, ManifestDB, emptyDB(t))
	} else {
		manifesttest.WriteDB(t, filepath.Join(dir, ManifestDB), manifesttest.Schema, manifesttest.Insert(s.rows))
	}
	for i := range s.rows {
		if r := &s.rows[i]; r.IsFile() {
			put(t, dir, BlobPath(Hashed, r.FileID), make([]byte, r.Size))
		}
	}
	return dir
}

// emptyDB returns a Manifest.db without rows. It is made only once, since
// writing one takes a while.
func emptyDB(t testing.TB) []byte {
	t.Helper()
	emptyOnce.Do(func() {
		path := filepath.Join(t.TempDir(), ManifestDB)
		manifesttest.WriteDB(t, path, manifesttest.Schema, nil)
		var err error
		if empty, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	})
	return empty
}

var (
	emptyOnce sync.Once
	empty     []byte
)

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
