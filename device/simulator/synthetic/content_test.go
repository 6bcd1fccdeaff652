package synthetic

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/internal/faultpoint"
	"howett.net/plist"
)

func testMaker(seed uint64) *maker {
	return &maker{seed: seed, words: newLexicon(), first: DefaultStart}
}

func contentOf(t *testing.T, m *maker, f *file) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestContentIsTheSameEverywhere compares hashes of the content with fixed ones. The
// content must be the same on every platform and with every version of Go and of the
// libraries.
func TestContentIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	m := testMaker(1)
	for _, c := range []struct {
		want string
		file
	}{
		{"47c0fe8cbf438ec8", file{kind: kindPlist, source: "a", size: 20, version: 2, modified: 1_767_000_000}},
		{"a575fa748a7d1704", file{kind: kindKeychain, source: "a", size: 2000, version: 1}},
		{"a1223cf430aa2e5f", file{kind: kindJSON, source: "a", size: 5, version: 3, born: 1_767_000_000, modified: 1_768_000_000}},
		{"1aee0d271baa7210", file{kind: kindText, source: "a", size: 10}},
		{"41b1cbe6d98c58cf", file{kind: kindLog, source: "a", size: 10, since: -2, until: 3}},
		{"4f84358b1025345e", file{kind: kindHEIC, source: "a", size: 100_001}},
		{"5b7abd7ec679b6f6", file{kind: kindMovie, source: "a", size: 70_000}},
	} {
		sum := sha256.Sum256(contentOf(t, m, &c.file))
		if got := hex.EncodeToString(sum[:8]); got != c.want {
			t.Errorf("kind %d: %s, want %s", c.kind, got, c.want)
		}
	}
	sum := sha256.Sum256((&record{path: "Übung/日本.txt", mode: modeFile, size: 1 << 33, modified: 1_767_000_000, uid: -2, inode: 300,
		key: make([]byte, 44), digest: make([]byte, 20), xattrs: []byte{1}}).marshal())
	if got := hex.EncodeToString(sum[:8]); got != "e2853598868a2a02" {
		t.Errorf("MBFile: %s", got)
	}
}

// TestVersionsDifferLittle checks that each new version of a file differs little from
// the version before.
func TestVersionsDifferLittle(t *testing.T) {
	t.Parallel()
	m := testMaker(2)
	for _, f := range []*file{
		{kind: kindPlist, source: "p", size: 40, modified: 1_767_000_000},
		{kind: kindJSON, source: "j", size: 40, born: 1_767_000_000, modified: 1_767_000_000},
	} {
		a := contentOf(t, m, f)
		f.version++
		f.modified += 86400
		b := contentOf(t, m, f)
		const piece = 16
		same, pieces := 0, len(a)/piece
		for i := range pieces {
			if bytes.Contains(b, a[i*piece:(i+1)*piece]) {
				same++
			}
		}
		if bytes.Equal(a, b) || same < pieces*3/4 {
			t.Errorf("kind %d: %d of %d pieces stay", f.kind, same, pieces)
		}
	}
	f := &file{kind: kindLog, source: "l", size: 20, since: 1, until: 3}
	a := contentOf(t, m, f)
	f.until++
	if b := contentOf(t, m, f); !bytes.HasPrefix(b, a) || len(b) == len(a) {
		t.Error("the new log does not begin with the old one")
	}
}

func TestContentIsWellFormed(t *testing.T) {
	t.Parallel()
	m := testMaker(3)
	var dict map[string]any
	if _, err := plist.Unmarshal(contentOf(t, m, &file{kind: kindPlist, source: "x", size: 30}), &dict); err != nil || len(dict) < 25 {
		t.Errorf("plist of %d keys: %v", len(dict), err)
	}
	if err := json.Unmarshal(contentOf(t, m, &file{kind: kindJSON, source: "x", size: 9}), &dict); err != nil {
		t.Error(err)
	}
	for _, size := range []int{0, 3, 200, 64 << 10, 64<<10 + 61} {
		for _, kind := range []kind{kindJPEG, kindHEIC, kindMovie} {
			if got := len(contentOf(t, m, &file{kind: kind, source: "x", size: size})); got != size {
				t.Errorf("kind %d of %d bytes has %d", kind, size, got)
			}
		}
	}
	if err := m.write(io.Discard, &file{kind: kindFolder}); err == nil {
		t.Error("a folder has content")
	}
}

func TestPlistWriterAgainstLibrary(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	made := marshalPlist(plistDict{
		{"zero", uint64(0)}, {"byte", uint64(255)}, {"short", uint64(65535)}, {"int", uint64(1 << 31)}, {"long", plistLong(1 << 40)},
		{"text", long}, {"Ü", "日本 📝"}, {"data", plistData(long)}, {"list", plistList{"a", "a", uint64(0), plistUID(3)}},
	})
	var back map[string]any
	if _, err := plist.Unmarshal(made, &back); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"zero": uint64(0), "byte": uint64(255), "short": uint64(65535), "int": uint64(1 << 31), "long": uint64(1 << 40), "text": long, "Ü": "日本 📝"} {
		if back[key] != want {
			t.Errorf("%s = %v, want %v", key, back[key], want)
		}
	}
	if data, _ := back["data"].([]byte); string(data) != long {
		t.Errorf("data = %q", data)
	}
	if list, _ := back["list"].([]any); len(list) != 4 || list[1] != "a" || list[3] != plist.UID(3) {
		t.Errorf("list = %v", list)
	}
}

// TestOddities checks that a device has each kind of odd file.
func TestOddities(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSeries(t, Config{Seed: 9, Encryption: EncryptAll})
	advance(t, s, dir, 7)
	b := openBackup(t, filepath.Join(dir, s.Devices()[0].UDID), DefaultPassword)
	count := map[string]int{}
	contents, folded := map[string]string{}, map[string]string{}
	for _, r := range b.rows {
		if lower := strings.ToLower(r.String()); folded[lower] != "" {
			count["case twin"]++
		} else {
			folded[lower] = r.String()
		}
		switch {
		case r.flags == 4:
			count["symlink"]++
			continue
		case r.flags != 1:
			continue
		case strings.HasSuffix(r.path, ".log.1"):
			count["rotated log"]++
		case strings.Contains(r.path, "e\u0301") || strings.Contains(r.path, "\u00e9"):
			count["accent"]++
		}
		content := b.content(t, r)
		stored := len(b.stored(t, r))
		switch {
		case r.record.flags&flagDataless != 0:
			count["dataless"]++
		case len(content) == 0 && stored == 16:
			count["empty"]++
		case int64(len(content)) != r.size:
			count["size off"]++
		case len(content) > 10<<10:
			if first := contents[string(content)]; first != "" && strings.HasPrefix(r.domain, "MediaDomain") != strings.HasPrefix(first, "MediaDomain") {
				count["duplicate"]++
			}
			contents[string(content)] = r.String()
		}
	}
	for what, least := range map[string]int{"case twin": 1, "symlink": 3, "rotated log": 3, "accent": 2, "dataless": 1, "empty": 4, "size off": 2, "duplicate": 1} {
		if count[what] < least {
			t.Errorf("%s: %d, want %d", what, count[what], least)
		}
	}
}

func TestDatabasesChangeInFewPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSeries(t, Config{Seed: 4})
	root := filepath.Join(dir, s.Devices()[0].UDID)
	blob := filepath.Join(root, "3d", "3d0d7e5fb2ce288813306e4d4636395e047a3d28")
	advance(t, s, dir, 1)
	before, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	advance(t, s, dir, 1)
	after, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for i := 0; i+4096 <= min(len(before), len(after)); i += 4096 {
		if bytes.Equal(before[i:i+4096], after[i:i+4096]) {
			same++
		}
	}
	if pages := len(before) / 4096; same < pages/2 || same == pages || len(after) <= len(before) {
		t.Errorf("%d of %d pages stay, %d bytes become %d", same, pages, len(before), len(after))
	}
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	devices, err := Generate(context.Background(), dir, Config{Devices: 2, StateDir: t.TempDir()}, 2)
	if err != nil || len(devices) != 2 {
		t.Fatal(devices, err)
	}
	for _, d := range devices {
		if _, err := os.Stat(filepath.Join(dir, d.UDID, "Status.plist")); err != nil {
			t.Error(err)
		}
	}
}

func TestGenerateLegacy(t *testing.T) {
	t.Parallel()
	for _, encryption := range encryptions() {
		dir := t.TempDir()
		d, err := GenerateLegacy(context.Background(), dir, Config{Encryption: encryption, StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(dir, d.UDID)
		text, err := os.ReadFile(filepath.Join(root, "Manifest.mbdb"))
		if err != nil || !bytes.HasPrefix(text, []byte("mbdb\x05\x00")) {
			t.Fatalf("Manifest.mbdb: %v", err)
		}
		var manifest struct {
			Version      string
			IsEncrypted  bool
			BackupKeyBag []byte
		}
		readPlist(t, filepath.Join(root, "Manifest.plist"), &manifest)
		if manifest.Version != "9.1" || manifest.IsEncrypted != d.Encrypted || len(manifest.BackupKeyBag) != 1336 {
			t.Errorf("Manifest.plist: %s, %t, bag of %d", manifest.Version, manifest.IsEncrypted, len(manifest.BackupKeyBag))
		}
		files := 0
		for rest := text[6:]; len(rest) > 0; files++ {
			rest = checkRecord(t, root, rest, manifest.BackupKeyBag, d.Encrypted)
		}
		if files < 100 {
			t.Errorf("%d records", files)
		}
		if entries, err := os.ReadDir(root); err != nil || len(entries) < 100 {
			t.Errorf("%d entries, %v", len(entries), err)
		}
	}
}

// checkRecord reads the first record of b and checks the blob of the record. It
// returns the rest of b.
func checkRecord(t *testing.T, root string, b, rawBag []byte, encrypted bool) []byte {
	t.Helper()
	number := func(n int) (v uint64) {
		for _, c := range b[:n] {
			v = v<<8 | uint64(c)
		}
		b = b[n:]
		return v
	}
	text := func() []byte {
		n := int(number(2))
		if n == 0xffff {
			return nil
		}
		s := b[:n]
		b = b[n:]
		return s
	}
	domain, path, _, digest, key := text(), text(), text(), text(), text()
	mode := number(2)
	b = b[8+5*4:]
	size := number(8)
	class := number(1)
	for range number(1) {
		text()
		text()
	}
	if mode&0xf000 != 0x8000 {
		return b
	}
	id := sha1.Sum([]byte(string(domain) + "-" + string(path)))
	blob, err := os.ReadFile(filepath.Join(root, hex.EncodeToString(id[:])))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha1.Sum(blob); digest != nil && !bytes.Equal(sum[:], digest) {
		t.Errorf("%s: digest", path)
	}
	if (key != nil) != encrypted {
		t.Errorf("%s: key %x", path, key)
	}
	if encrypted && len(blob) > 0 && size < 1<<20 {
		bag, err := keybag.Parse(rawBag)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := bag.Unlock(context.Background(), []byte(DefaultPassword), nil)
		if err != nil {
			t.Fatal(err)
		}
		fileKey, err := keys.Unwrap(key)
		if err != nil || uint64(key[0]) != class {
			t.Fatal(class, err)
		}
		if _, err := io.Copy(io.Discard, keybag.NewDecrypter(bytes.NewReader(blob), fileKey)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	return b
}

// TestSmallScale checks the size that the documentation of Small gives. It writes the
// backup only with SNAP_TEST_ALL.
func TestSmallScale(t *testing.T) {
	t.Parallel()
	s := newSeries(t, Config{Scale: Small})
	files, size, least := 0, int64(0), int64(45e6)
	if faultpoint.All() {
		dir := t.TempDir()
		advance(t, s, dir, 2)
		for _, f := range scan(t, dir) {
			if !f.info.IsDir() {
				files++
				size += f.info.Size()
			}
		}
	} else {
		d := s.devices[0]
		d.begin(0)
		d.firstDay()
		w := counter{w: io.Discard}
		for _, f := range d.order {
			if !f.hasBlob() {
				continue
			}
			files++
			if f.kind == kindDatabase {
				continue
			}
			if err := d.m.write(&w, f); err != nil {
				t.Fatal(err)
			}
		}
		size, least = w.n, 35e6 // size without databases
	}
	if files < 2000 || files > 4000 || size < least || size > 80e6 {
		t.Errorf("%d files, %d bytes", files, size)
	}
}

// TestCompactCopies checks that compacted databases have the same rows in fewer
// pages.
func TestCompactCopies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it generates six days")
	}
	const id = "e74113c185fd8297e140cfcf9c99436c5cc06b57" // Safari's history, from which rows are deleted
	var pages, visits, free [2]int
	for i, compact := range []bool{false, true} {
		dir := t.TempDir()
		s := newSeries(t, Config{Seed: 4, CompactDBs: compact})
		advance(t, s, dir, 3)
		db := openReadOnly(t, filepath.Join(dir, s.Devices()[0].UDID, id[:2], id))
		for query, n := range map[string]*int{"PRAGMA page_count": &pages[i], "SELECT count(*) FROM history_visits": &visits[i], "PRAGMA freelist_count": &free[i]} {
			if err := db.QueryRow(query).Scan(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if visits[0] != visits[1] || visits[0] == 0 || pages[1] >= pages[0] || free[1] != 0 {
		t.Errorf("live and compact: visits %v, pages %v, free pages %v", visits, pages, free)
	}
}
