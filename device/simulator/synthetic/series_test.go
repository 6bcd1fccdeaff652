package synthetic

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
)

func TestSameConfigSameBytes(t *testing.T) {
	t.Parallel()
	conf, days := Config{Seed: 7, Devices: 2, Encryption: EncryptAlternate}, 2
	switch {
	case faultpoint.All():
		conf.Devices, days = 3, 3
	case testing.Short():
		conf.Devices, conf.Encryption, days = 1, EncryptAll, 1
	}
	// Without a cache; while it is filled; from the cache.
	cache := newDayCache()
	var runs [3]map[string]state
	for i, c := range []*dayCache{nil, cache, cache} {
		dir := t.TempDir()
		s := newSeries(t, conf)
		for _, d := range s.devices {
			d.cache = c
		}
		advance(t, s, dir, days)
		runs[i] = scan(t, dir)
		delete(runs[i], ".")
	}
	compareScans(t, runs[0], runs[1])
	compareScans(t, runs[0], runs[2])
	if len(cache.files) == 0 {
		t.Error("the cache is empty")
	}
	other := t.TempDir()
	conf.Seed++
	advance(t, newSeries(t, conf), other, 1)
	for path := range scan(t, other) {
		if strings.HasSuffix(path, ".plist") && runs[0][path].info != nil {
			t.Errorf("another seed makes the same device: %s", path)
		}
	}
}

func compareScans(t *testing.T, a, b map[string]state) {
	t.Helper()
	for path, x := range a {
		y, ok := b[path]
		switch {
		case !ok:
			t.Errorf("%s is missing in the second run", path)
		case x.sum != y.sum:
			t.Errorf("%s differs", path)
		case !x.info.IsDir() && !x.info.ModTime().Equal(y.info.ModTime()):
			t.Errorf("%s: mtime %v and %v", path, x.info.ModTime(), y.info.ModTime())
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d and %d files", len(a), len(b))
	}
}

// TestUpdatesInPlace compares the backup folders of two days. If a row of the manifest
// is unchanged, its blob must be the same file; all other blobs must be new.
func TestUpdatesInPlace(t *testing.T) {
	t.Parallel()
	days := 2
	if faultpoint.All() {
		days = 6
	}
	for _, encryption := range encryptions() {
		dir := t.TempDir()
		s := newSeries(t, Config{Seed: 3, Encryption: encryption})
		root := filepath.Join(dir, s.Devices()[0].UDID)
		advance(t, s, dir, days)
		before, rows := scan(t, root), rowsByID(openBackup(t, root, DefaultPassword))
		advance(t, s, dir, 1)
		after, now := scan(t, root), rowsByID(openBackup(t, root, DefaultPassword))

		kept, changed, added, removed := 0, 0, 0, 0
		for id, row := range now {
			if row.flags != 1 {
				continue
			}
			path := id[:2] + "/" + id
			old, existed := rows[id]
			switch {
			case !existed:
				added++
			case bytes.Equal(old.marshal(), row.marshal()):
				kept++
				if !os.SameFile(before[path].info, after[path].info) || !before[path].info.ModTime().Equal(after[path].info.ModTime()) {
					t.Errorf("%s: unchanged, but it is another file", row)
				}
				if old.rowid != row.rowid {
					t.Errorf("%s: unchanged, but its row moved", row)
				}
			default:
				changed++
				if os.SameFile(before[path].info, after[path].info) {
					t.Errorf("%s: changed, but its blob was overwritten in place", row)
				}
				if encryption == EncryptAll && bytes.Equal(old.key, row.key) {
					t.Errorf("%s: changed, but it has the old key", row)
				}
			}
		}
		for id, row := range rows {
			if _, ok := now[id]; !ok && row.flags == 1 {
				removed++
				if _, ok := after[id[:2]+"/"+id]; ok {
					t.Errorf("%s: removed, but its blob exists", row)
				}
			}
		}
		if kept < 50 || changed < 10 || added < 1 || removed < 2 {
			t.Errorf("%d kept, %d changed, %d added, %d removed", kept, changed, added, removed)
		}
		for _, name := range []string{"Manifest.db", "Manifest.plist", "Status.plist", "Info.plist"} {
			if before[name].sum == after[name].sum || os.SameFile(before[name].info, after[name].info) {
				t.Errorf("%s was not rewritten", name)
			}
		}
		for path := range after {
			if strings.Contains(path, "upload") || strings.Contains(path, "Snapshot") {
				t.Errorf("left behind: %s", path)
			}
		}
	}
}

// encryptions returns the encryption policies to test: EncryptNone and EncryptAll, or
// only EncryptAll with -short.
func encryptions() []Encryption {
	if testing.Short() {
		return []Encryption{EncryptAll}
	}
	return []Encryption{EncryptNone, EncryptAll}
}

func rowsByID(b *backup) map[string]manifestRow {
	rows := map[string]manifestRow{}
	for _, r := range b.rows {
		rows[r.id] = r
	}
	return rows
}

// TestBackupIsSound checks plain and encrypted folders after a few days.
func TestBackupIsSound(t *testing.T) {
	t.Parallel()
	days := 3
	if faultpoint.All() {
		days = 7
	}
	cases := []struct {
		days int
		conf Config
	}{
		{days, Config{Seed: 5}},
		{2, Config{Seed: 5, Encryption: EncryptAll}},
		{2, Config{Seed: 6, Encryption: EncryptAll, EmptyAsZeroBytes: true, CompactDBs: true}},
	}
	for _, i := range faultpoint.Choose(t, len(cases), len(cases)) {
		c, dir := cases[i], t.TempDir()
		s := newSeries(t, c.conf)
		advance(t, s, dir, c.days)
		checkSound(t, s, 0, dir)
	}
}

func checkSound(t *testing.T, s *Series, device int, dir string) *backup {
	t.Helper()
	d := s.Devices()[device]
	root := filepath.Join(dir, d.UDID)
	b := openBackup(t, root, s.Password(s.Day()))
	if b.manifest.IsEncrypted != d.Encrypted || b.manifest.Version != "10.0" || b.manifest.Lockdown.UniqueDeviceID != d.UDID {
		t.Errorf("Manifest.plist: %v, %s, %s", b.manifest.IsEncrypted, b.manifest.Version, b.manifest.Lockdown.UniqueDeviceID)
	}
	blobs := map[string]bool{}
	for path, s := range scan(t, root) {
		if strings.Contains(path, "/") && !s.info.IsDir() {
			blobs[filepath.Base(path)] = true
		}
	}
	for i := range 256 {
		if _, err := os.Stat(filepath.Join(root, hex.EncodeToString([]byte{byte(i)}))); err != nil {
			t.Error(err)
		}
	}
	byName := map[string]bool{}
	for _, r := range b.rows {
		byName[r.String()] = true
		if sum := sha1.Sum([]byte(r.String())); r.id != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: fileID %s", r, r.id)
		}
		if r.flags != r.manifestFlags() {
			t.Errorf("%s: flags %d, mode %o", r, r.flags, r.mode)
		}
		if r.flags != 1 {
			continue
		}
		if !blobs[r.id] {
			t.Fatalf("%s: no blob", r)
		}
		delete(blobs, r.id)
		checkContent(t, b, r)
		if (r.key != nil) != d.Encrypted {
			t.Errorf("%s: key %x", r, r.key)
		}
		if (r.digest != nil) != hasDigest(r.domain) {
			t.Errorf("%s: digest %x", r, r.digest)
		}
		if sum := sha1.Sum(b.stored(t, r)); r.digest != nil && !bytes.Equal(r.digest, sum[:]) {
			t.Errorf("%s: the digest is not that of the stored bytes", r)
		}
	}
	if len(blobs) > 0 {
		t.Errorf("%d blobs without a row", len(blobs))
	}
	for _, r := range b.rows {
		if r.path != "" && !byName[r.domain+"-"+parent(r.path)] {
			t.Errorf("%s: no row for its folder", r)
		}
	}
	checkDatabase(t, b.db)
	return b
}

// checkContent compares the length of a file with the manifest, and opens the file if
// it is a database.
func checkContent(t *testing.T, b *backup, r manifestRow) {
	t.Helper()
	content := b.content(t, r)
	isDatabase := bytes.HasPrefix(content, []byte("SQLite format 3\x00"))
	switch {
	case r.flags == 1 && r.record.flags&flagDataless != 0:
		if len(b.stored(t, r)) != 0 || r.size == 0 {
			t.Errorf("%s: dataless, but %d bytes and size %d", r, len(content), r.size)
		}
	case int64(len(content)) != r.size && !isDatabase:
		t.Errorf("%s: %d bytes, size %d", r, len(content), r.size)
	}
	if isDatabase {
		path := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		checkDatabase(t, path)
	}
}

func checkDatabase(t *testing.T, path string) {
	t.Helper()
	head, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(head) < 100 || head[16] != 0x10 || head[17] != 0 || head[18] != 2 || head[19] != 2 {
		t.Errorf("%s: not the header of a database in WAL mode with pages of 4096 bytes", path)
	}
	db := openReadOnly(t, path)
	defer db.Close()
	var verdict string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("%s: %s, %v", path, verdict, err)
	}
}

func TestManifestSchema(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSeries(t, Config{})
	advance(t, s, dir, 1)
	b := openBackup(t, filepath.Join(dir, s.Devices()[0].UDID), "")
	db := openReadOnly(t, b.db)
	for pragma, want := range map[string]int{"user_version": 2, "page_size": 4096, "auto_vacuum": 2, "application_id": 0} {
		var got int
		if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %d, %v; want %d", pragma, got, err, want)
		}
	}
	rows, err := db.Query(`SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	if want := manifestTables[:5]; !slices.Equal(got, want) {
		t.Errorf("schema %q", got)
	}
	folders := 0
	for _, r := range b.rows {
		if r.flags == 2 {
			folders++
		}
	}
	if share := folders * 100 / len(b.rows); share < 65 || share > 75 {
		t.Errorf("%d of 100 rows are folders", share)
	}
}

// TestEncryptedHoldsThePlainContent compares the content of a plain and an encrypted
// series of the same seed.
func TestEncryptedHoldsThePlainContent(t *testing.T) {
	t.Parallel()
	plainDir, encryptedDir := t.TempDir(), t.TempDir()
	plain := newSeries(t, Config{Seed: 11})
	conf, days := Config{Seed: 11, Encryption: EncryptAll, PasswordChangeDay: 1, NewPassword: "another"}, 2
	if faultpoint.All() {
		conf.PasswordChangeDay, conf.FullBackupDay, days = 2, 3, 5
	}
	encrypted := newSeries(t, conf)
	udid := plain.Devices()[0].UDID
	if udid != encrypted.Devices()[0].UDID {
		t.Fatal("encryption changes the UDID")
	}
	for day := range days {
		advance(t, plain, plainDir, 1)
		advance(t, encrypted, encryptedDir, 1)
		a := openBackup(t, filepath.Join(plainDir, udid), "")
		b := openBackup(t, filepath.Join(encryptedDir, udid), encrypted.Password(day))
		if len(a.rows) != len(b.rows) {
			t.Fatalf("day %d: %d and %d rows", day, len(a.rows), len(b.rows))
		}
		others := rowsByID(b)
		for _, r := range a.rows {
			other := others[r.id]
			if other.record == nil || other.size != r.size || other.modified != r.modified || other.inode != r.inode {
				t.Fatalf("day %d: %s is another row when encrypted", day, r)
			}
			if r.flags == 1 && !bytes.Equal(a.content(t, r), b.content(t, other)) {
				t.Errorf("day %d: %s has other content when encrypted", day, r)
			}
		}
	}
}

// TestKeysOverTime follows the keybag, the manifest key and the file keys through
// an incremental run, a password change and a full backup.
func TestKeysOverTime(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it generates four days")
	}
	dir := t.TempDir()
	s := newSeries(t, Config{Seed: 2, Encryption: EncryptAll, PasswordChangeDay: 2, NewPassword: "another", FullBackupDay: 3})
	var last *backup
	for day := range 4 {
		advance(t, s, dir, 1)
		now := checkSound(t, s, 0, dir)
		if last != nil {
			full := day >= 2
			if bytes.Equal(last.manifest.BackupKeyBag, now.manifest.BackupKeyBag) == full {
				t.Errorf("day %d: keybag", day)
			}
			if bytes.Equal(last.manifest.ManifestKey, now.manifest.ManifestKey) {
				t.Errorf("day %d: the manifest key stayed", day)
			}
			before, same, all := rowsByID(last), 0, 0
			for _, r := range now.rows {
				if old := before[r.id]; old.record != nil && r.flags == 1 {
					all++
					if bytes.Equal(old.key, r.key) {
						same++
					}
				}
			}
			if full && same > 0 || !full && same < all/2 {
				t.Errorf("day %d: %d of %d keys stayed", day, same, all)
			}
		}
		last = now
	}
	if s.Password(1) != DefaultPassword || s.Password(2) != "another" {
		t.Error("passwords")
	}
}
