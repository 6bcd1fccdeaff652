package mobilesync_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/ramtemp"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

// generated returns a copy of a backup of the first day of a tiny device.
func generated(t *testing.T, encrypted bool) string {
	t.Helper()
	original, err := generate(encrypted)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), filepath.Base(original))
	if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// scratch is a folder that is removed after all tests.
var scratch string

func TestMain(m *testing.M) {
	defer ramtemp.Use()()
	var err error
	if scratch, err = os.MkdirTemp("", "mobilesync"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	m.Run()
}

var (
	generatePlain     = sync.OnceValues(func() (string, error) { return generateOnce("plain", synthetic.Config{Seed: 5}) })
	generateEncrypted = sync.OnceValues(func() (string, error) {
		return generateOnce("encrypted", synthetic.Config{Seed: 5, Encryption: synthetic.EncryptAll})
	})
)

func generate(encrypted bool) (string, error) {
	if encrypted {
		return generateEncrypted()
	}
	return generatePlain()
}

func generateOnce(name string, conf synthetic.Config) (string, error) {
	dir := filepath.Join(scratch, name)
	conf.StateDir = filepath.Join(scratch, name+"-state")
	for _, d := range []string{dir, conf.StateDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	devices, err := synthetic.Generate(context.Background(), dir, conf, 1)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, devices[0].UDID), nil
}

func openBackup(t *testing.T, dir string) *mobilesync.Backup {
	t.Helper()
	b, err := mobilesync.Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// TestUnlock compares an encrypted backup with an unencrypted one of the same
// device: both must have the same rows and the same content in every file.
func TestUnlock(t *testing.T) {
	ctx := context.Background()
	encrypted := openBackup(t, generated(t, true))
	plain := openBackup(t, generated(t, false))
	if _, err := encrypted.Records(ctx); !errors.Is(err, mobilesync.ErrEncrypted) {
		t.Fatalf("records before unlocking: %v", err)
	}
	keys, err := encrypted.Unlock(ctx, []byte(synthetic.DefaultPassword), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Destroy()
	got, err := encrypted.Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, err := plain.Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got.Len() != want.Len() || got.Anomalies.Total() != want.Anomalies.Total() {
		t.Fatalf("%d rows, %+v; want %d, %+v", got.Len(), got.Anomalies, want.Len(), want.Anomalies)
	}
	files := 0
	for i, rec := range got.All() {
		twin := want.At(i)
		if rec.Domain != twin.Domain || rec.RelativePath != twin.RelativePath || rec.Mode != twin.Mode {
			t.Fatalf("row %d is %s/%s, want %s/%s", i, rec.Domain, rec.RelativePath, twin.Domain, twin.RelativePath)
		}
		if !rec.IsFile() {
			continue
		}
		files++
		path := mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)
		key, err := encrypted.FileKey(&rec)
		if err != nil {
			t.Fatalf("%s: %v", rec.RelativePath, err)
		}
		a, b := read(t, encrypted, path), read(t, plain, path)
		if len(a) == 0 { // the file was moved to a cloud
			if len(b) != 0 {
				t.Errorf("%s: no bytes, want %d", rec.RelativePath, len(b))
			}
			continue
		}
		content, err := io.ReadAll(keybag.NewVerifier(bytes.NewReader(a), key))
		if err != nil || !bytes.Equal(content, b) {
			t.Errorf("%s: %d bytes, %v; want %d", rec.RelativePath, len(content), err, len(b))
		}
	}
	if files < 100 {
		t.Errorf("only %d files were compared", files)
	}
}

func read(t *testing.T, b *mobilesync.Backup, path string) []byte {
	t.Helper()
	f, err := b.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestUnlockRefuses(t *testing.T) {
	ctx := context.Background()
	dir := generated(t, true)
	b := openBackup(t, dir)
	if _, err := b.Unlock(ctx, []byte("wrong"), nil); !errors.Is(err, keybag.ErrWrongPassword) || b.Unlocked() {
		t.Errorf("wrong password: %v", err)
	}
	plain := openBackup(t, generated(t, false))
	if _, err := plain.Unlock(ctx, nil, nil); !errors.Is(err, mobilesync.ErrNotUnlockable) {
		t.Errorf("not encrypted: %v", err)
	}
	// If the key does not decrypt Manifest.db, the file is damaged. The password
	// is still right.
	name := filepath.Join(dir, mobilesync.ManifestDB)
	db, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	db[3] ^= 1
	if err := os.WriteFile(name, db, 0o600); err != nil {
		t.Fatal(err)
	}
	b = openBackup(t, dir)
	if _, err := b.Unlock(ctx, []byte(synthetic.DefaultPassword), nil); !errors.Is(err, manifest.ErrCorrupt) || b.Unlocked() {
		t.Errorf("damaged Manifest.db: %v", err)
	}
}

// TestSampleUnlock reads a file of a backup that another project made. The keybag
// needs ten million rounds. The backup has a Manifest.db without padding, and a row
// with flags 0.
func TestSampleUnlock(t *testing.T) {
	samples := os.Getenv("SNAP_TEST_SAMPLES")
	if samples == "" {
		t.Skip("SNAP_TEST_SAMPLES is not set")
	}
	if testing.Short() {
		t.Skip("real round counts")
	}
	ctx := context.Background()
	b := openBackup(t, filepath.Join(samples, "pyiosbackup", "encrypted-ios10.2-layout"))
	rounds := uint64(0)
	keys, err := b.Unlock(ctx, []byte("0000"), func(done, total uint64) { rounds = max(rounds, total) })
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Destroy()
	if rounds < 10_000_000 {
		t.Errorf("progress reported %d rounds", rounds)
	}
	records, err := b.Records(ctx)
	if err != nil || records.Len() != 1 {
		t.Fatal(records, err)
	}
	rec := records.At(0)
	key, err := b.FileKey(&rec)
	if err != nil {
		t.Fatal(err)
	}
	blob := read(t, b, mobilesync.BlobPath(mobilesync.Hashed, rec.FileID))
	content, err := io.ReadAll(keybag.NewVerifier(bytes.NewReader(blob), key))
	if err != nil || string(content) != "Test data" {
		t.Errorf("%q, %v", content, err)
	}
	old := openBackup(t, filepath.Join(samples, "pyiosbackup", "encrypted-mbdb-layout"))
	if _, err := old.Unlock(ctx, []byte("0000"), nil); !errors.Is(err, mobilesync.ErrNotUnlockable) {
		t.Errorf("old layout: %v", err)
	}
}

// TestKeysAreNotPrinted prints values that hold keys, in every way. No key may
// appear.
func TestKeysAreNotPrinted(t *testing.T) {
	ctx := context.Background()
	b := openBackup(t, generated(t, true))
	keys, err := b.Unlock(ctx, []byte(synthetic.DefaultPassword), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Destroy()
	key, encrypted := b.ManifestDBKey()
	if !encrypted {
		t.Fatal("Manifest.db is not encrypted")
	}
	// The test has no access to class keys, so it looks for any number or text as
	// long as a key.
	long := regexp.MustCompile(`([0-9]+ ){20}|(0x[0-9a-f]+, ){20}|[0-9a-fA-F]{40}`)
	forms := []string{string(key[:]), hex.EncodeToString(key[:]), fmt.Sprintf("%d", key[:])}
	type holder struct {
		Keys *keybag.Keys
		Key  keybag.FileKey
		B    *mobilesync.Backup
	}
	for _, v := range []any{b, keys, *keys, key, &key, []keybag.FileKey{key}, holder{keys, key, b}, &holder{keys, key, b}} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%T", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("log", "value", v)
		if long.Match(out.Bytes()) {
			t.Errorf("%T is printed with a key:\n%s", v, out.String())
		}
		for _, form := range forms {
			if strings.Contains(strings.ToLower(out.String()), strings.ToLower(form)) {
				t.Errorf("%T is printed with the key of Manifest.db:\n%s", v, out.String())
			}
		}
	}
	for _, form := range []any{key[:], struct{ K *[32]byte }{(*[32]byte)(&key)}} {
		if !long.MatchString(fmt.Sprintf("%s %x %d %#v", form, form, form, form)) {
			t.Errorf("a printed key is not found: %d", form)
		}
	}
}

// TestUnlockDecryptedManifest unlocks a backup whose Manifest.db was decrypted in
// place, while its files are encrypted.
func TestUnlockDecryptedManifest(t *testing.T) {
	ctx := context.Background()
	dir := generated(t, true)
	b := openBackup(t, dir)
	keys, err := b.Unlock(ctx, []byte(synthetic.DefaultPassword), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Destroy()
	key, _ := b.ManifestDBKey()
	plain, err := io.ReadAll(keybag.NewDecrypter(bytes.NewReader(read(t, b, mobilesync.ManifestDB)), key))
	if err != nil {
		t.Fatal(err)
	}
	want, err := b.Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, mobilesync.ManifestDB), plain, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := openBackup(t, dir)
	if _, err := opened.Unlock(ctx, []byte("wrong"), nil); !errors.Is(err, keybag.ErrWrongPassword) || opened.Unlocked() {
		t.Errorf("wrong password: %v", err)
	}
	if err := opened.UnlockWith(keys); err != nil {
		t.Fatal(err)
	}
	if _, encrypted := opened.ManifestDBKey(); encrypted {
		t.Error("Manifest.db is reported as encrypted")
	}
	got, err := opened.Records(ctx)
	if err != nil || got.Len() != want.Len() {
		t.Fatalf("%d rows, want %d: %v", got.Len(), want.Len(), err)
	}
	for i, rec := range got.All() {
		if other := want.At(i); len(rec.EncryptionKey) > 0 {
			a, err := opened.FileKey(&rec)
			if b, berr := b.FileKey(&other); err != nil || berr != nil || a != b {
				t.Fatalf("row %d: %v, %v", i, err, berr)
			}
		}
	}
}
