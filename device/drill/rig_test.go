package drill

import (
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/ramtemp"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

func TestMain(m *testing.M) {
	defer ramtemp.Use()()
	m.Run()
}

// folder is a generated backup folder that a test damages.
type folder struct {
	t        testing.TB
	dir      string
	password string // "" if it is not encrypted
	locked   bool   // the password no longer opens it
}

func newFolder(t testing.TB, encrypted bool) *folder {
	t.Helper()
	conf := synthetic.Config{Seed: 5, StateDir: t.TempDir()}
	f := &folder{t: t}
	if encrypted {
		conf.Encryption, f.password = synthetic.EncryptAll, synthetic.DefaultPassword
	}
	top := t.TempDir()
	devices, err := synthetic.Generate(t.Context(), top, conf, 1)
	if err != nil {
		t.Fatal(err)
	}
	f.dir = filepath.Join(top, devices[0].UDID)
	return f
}

func (f *folder) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// open opens the folder, with its password.
func (f *folder) open() *mobilesync.Backup {
	f.t.Helper()
	b, err := mobilesync.Open(f.t.Context(), f.dir)
	f.check(err)
	f.t.Cleanup(func() { b.Close() })
	if f.password != "" && !f.locked {
		keys, err := b.Unlock(f.t.Context(), []byte(f.password), nil)
		f.check(err)
		f.t.Cleanup(keys.Destroy)
	}
	return b
}

// pick returns the blob of the first file that fits, and its record.
func (f *folder) pick(fits func(*manifest.Record) bool) (file string, rec manifest.Record) {
	f.t.Helper()
	records, err := f.open().Records(f.t.Context())
	f.check(err)
	for _, rec := range records.All() {
		if rec.IsFile() && fits(&rec) {
			return filepath.Join(f.dir, filepath.FromSlash(mobilesync.BlobPath(mobilesync.Hashed, rec.FileID))), rec
		}
	}
	f.t.Fatal("no such file")
	return "", rec
}

// edit changes the bytes of a file.
func (f *folder) edit(file string, change func([]byte) []byte) {
	f.t.Helper()
	b, err := os.ReadFile(file)
	f.check(err)
	f.check(os.WriteFile(file, change(b), 0o600))
}

func (f *folder) editPlist(name string, change func(map[string]any)) {
	f.t.Helper()
	f.edit(filepath.Join(f.dir, name), func(b []byte) []byte {
		d, err := plist.Dict(b)
		f.check(err)
		change(d)
		b, err = plist.EncodeBinary(d)
		f.check(err)
		return b
	})
}

// withoutClass returns a keybag without the key of a class.
func withoutClass(bag []byte, class uint32) []byte {
	var out, group []byte
	drop := false
	flush := func() {
		if !drop {
			out = append(out, group...)
		}
		group, drop = nil, false
	}
	groups := 0
	for rest := bag; len(rest) >= 8; {
		n := 8 + int(binary.BigEndian.Uint32(rest[4:]))
		tag, value := string(rest[:4]), rest[8:n]
		if tag == "UUID" {
			if groups++; groups > 1 { // the first is the keybag's own
				flush()
			}
		}
		drop = drop || tag == "CLAS" && binary.BigEndian.Uint32(value) == class
		group, rest = append(group, rest[:n]...), rest[n:]
	}
	flush()
	return out
}

// damage is a way in which a backup is bad.
type damage struct {
	name      string
	encrypted bool
	do        func(f *folder)
	kind      string // of the finding; "" if the backup is good
	affected  string // path of the file, if it is one
}

func isDatabase(rec *manifest.Record) bool { return rec.RelativePath == "Library/SMS/sms.db" }
func hasDigest(rec *manifest.Record) bool {
	return rec.HasDigest && rec.Size > 100 && !mobilesync.NamedLikeDatabase(rec.RelativePath)
}

// damages are good backups and bad ones.
var damages = []damage{
	{name: "good", do: func(*folder) {}},
	{name: "good, encrypted", encrypted: true, do: func(*folder) {}},
	{name: "missing", kind: "missing", affected: "Library/SMS/sms.db", do: func(f *folder) {
		file, _ := f.pick(isDatabase)
		f.check(os.Remove(file))
	}},
	{name: "flipped", kind: "digest", do: func(f *folder) {
		file, _ := f.pick(hasDigest)
		f.edit(file, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	}},
	{name: "flipped, encrypted", encrypted: true, kind: "digest", do: func(f *folder) {
		file, _ := f.pick(hasDigest)
		f.edit(file, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	}},
	{name: "no padding, encrypted", encrypted: true, kind: "cipher", do: func(f *folder) {
		file, _ := f.pick(func(rec *manifest.Record) bool { return !rec.HasDigest && rec.Size > 0 && rec.Size%16 == 0 })
		f.edit(file, func(b []byte) []byte { return b[:len(b)-16] })
	}},
	{name: "cut, encrypted", encrypted: true, kind: "cipher", do: func(f *folder) {
		file, _ := f.pick(hasDigest)
		f.edit(file, func(b []byte) []byte { return b[:len(b)-5] })
	}},
	{name: "keybag", encrypted: true, kind: "no-key", do: func(f *folder) {
		_, rec := f.pick(hasDigest)
		class := binary.LittleEndian.Uint32(rec.EncryptionKey)
		f.editPlist(mobilesync.ManifestPlist, func(d map[string]any) {
			d["BackupKeyBag"] = withoutClass(d["BackupKeyBag"].([]byte), class)
		})
	}},
	{name: "no keybag", encrypted: true, kind: "refused", do: func(f *folder) {
		f.locked = true
		f.editPlist(mobilesync.ManifestPlist, func(d map[string]any) { d["BackupKeyBag"] = d["BackupKeyBag"].([]byte)[:100] })
	}},
	{name: "status", kind: "unfinished", do: func(f *folder) {
		f.editPlist(mobilesync.StatusPlist, func(d map[string]any) { d["SnapshotState"] = "uploading" })
	}},
	{name: "old version", kind: "status-version", do: func(f *folder) {
		f.editPlist(mobilesync.StatusPlist, func(d map[string]any) { d["Version"] = "2.1" })
	}},
	{name: "property list", kind: "plist", do: func(f *folder) {
		file, _ := f.pick(func(rec *manifest.Record) bool {
			return !rec.HasDigest && rec.Size > 100 && strings.HasSuffix(rec.RelativePath, ".plist")
		})
		f.edit(file, func(b []byte) []byte { b[0] ^= 1; return b })
	}},
	{name: "index of the manifest", kind: "database", affected: "Manifest.db", do: func(f *folder) {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(f.dir, mobilesync.ManifestDB)+"?_pragma=journal_mode(off)")
		f.check(err)
		defer db.Close()
		for _, q := range []string{"CREATE INDEX odd ON Files(flags)", "PRAGMA writable_schema=ON", "UPDATE sqlite_schema SET sql='CREATE INDEX odd ON Files(relativePath)' WHERE name='odd'"} {
			_, err := db.Exec(q)
			f.check(err)
		}
	}},
	{name: "database", kind: "database", affected: "Library/Safari/History.db", do: func(f *folder) {
		file, _ := f.pick(func(rec *manifest.Record) bool {
			return !rec.HasDigest && mobilesync.NamedLikeDatabase(rec.RelativePath)
		})
		f.edit(file, func(b []byte) []byte { clear(b[len(b)-2000:]); return b })
	}},
}

// stored imports the folder with its password.
func (f *folder) stored(be *memory.Backend) *Options {
	f.t.Helper()
	_, err := ingest.Import(f.t.Context(), repotest.Create(f.t, be), f.open(), ingest.Options{AllowIncomplete: true})
	f.check(err)
	return f.options(be)
}

// options returns the options of a drill of the only snapshot.
func (f *folder) options(be *memory.Backend) *Options {
	f.t.Helper()
	r := repotest.MustOpen(f.t, be)
	list, _, err := r.SnapshotsIndexed(f.t.Context())
	f.check(err)
	if len(list) != 1 {
		f.t.Fatalf("%d snapshots", len(list))
	}
	o := &Options{Repo: r, Snapshot: list[0], Temp: f.t.TempDir(), Workers: 1, Name: "here", Program: "test", Now: time.Now, Random: rand.Reader}
	if f.password != "" {
		o.Password = []byte(f.password)
	}
	return o
}

// nothingIn fails the test unless a folder is empty.
func nothingIn(t testing.TB, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s was left behind", e.Name())
	}
}

func kinds(findings []repo.Finding) (out []string) {
	for _, f := range findings {
		if f.Consequence != repo.Remark {
			out = append(out, f.Kind)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
