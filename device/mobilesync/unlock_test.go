package mobilesync_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/synthetic"
)

// generated makes one day of a tiny device and returns its folder.
func generated(t *testing.T, conf synthetic.Config) string {
	t.Helper()
	dir := t.TempDir()
	conf.StateDir = t.TempDir()
	devices, err := synthetic.Generate(context.Background(), dir, conf, 1)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, devices[0].UDID)
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

// TestUnlockGivesThePlainTwin compares an encrypted backup with the plain one
// of the same device: the same rows, and the same content in every file.
func TestUnlockGivesThePlainTwin(t *testing.T) {
	ctx := context.Background()
	sealed := openBackup(t, generated(t, synthetic.Config{Seed: 5, Encryption: synthetic.EncryptAll}))
	plain := openBackup(t, generated(t, synthetic.Config{Seed: 5}))
	if _, err := sealed.Records(ctx); !errors.Is(err, mobilesync.ErrEncrypted) {
		t.Fatalf("records before unlocking: %v", err)
	}
	keys, err := sealed.Unlock(ctx, []byte(synthetic.DefaultPassword), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Destroy()
	got, err := sealed.Records(ctx)
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
		key, err := sealed.FileKey(&rec)
		if err != nil {
			t.Fatalf("%s: %v", rec.RelativePath, err)
		}
		a, b := read(t, sealed, path), read(t, plain, path)
		if len(a) == 0 { // evicted to a cloud: nothing was sent
			if len(b) != 0 {
				t.Errorf("%s: no bytes, want %d", rec.RelativePath, len(b))
			}
			continue
		}
		content, err := io.ReadAll(keybag.NewProver(bytes.NewReader(a), key))
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
	dir := generated(t, synthetic.Config{Encryption: synthetic.EncryptAll})
	b := openBackup(t, dir)
	if _, err := b.Unlock(ctx, []byte("wrong"), nil); !errors.Is(err, keybag.ErrWrongPassword) || b.Unlocked() {
		t.Errorf("wrong password: %v", err)
	}
	plain := openBackup(t, generated(t, synthetic.Config{}))
	if _, err := plain.Unlock(ctx, nil, nil); !errors.Is(err, mobilesync.ErrNotUnlockable) {
		t.Errorf("not encrypted: %v", err)
	}
	// A Manifest.db that the key does not open is damage, not a wrong password.
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
	if _, err := b.Unlock(ctx, []byte(synthetic.DefaultPassword), nil); !errors.Is(err, mobilesync.ErrCorrupt) || b.Unlocked() {
		t.Errorf("damaged Manifest.db: %v", err)
	}
}

// TestSampleUnlock goes the whole way from a password to the text of a file,
// on a backup that another project made: ten million rounds, an unpadded
// Manifest.db, flags 0.
func TestSampleUnlock(t *testing.T) {
	samples := os.Getenv("SNAP_TEST_SAMPLES")
	if samples == "" {
		t.Skip("SNAP_TEST_SAMPLES is not set")
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
		t.Errorf("progress told of %d rounds", rounds)
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
	content, err := io.ReadAll(keybag.NewProver(bytes.NewReader(blob), key))
	if err != nil || string(content) != "Test data" {
		t.Errorf("%q, %v", content, err)
	}
	old := openBackup(t, filepath.Join(samples, "pyiosbackup", "encrypted-mbdb-layout"))
	if _, err := old.Unlock(ctx, []byte("0000"), nil); !errors.Is(err, mobilesync.ErrNotUnlockable) {
		t.Errorf("old layout: %v", err)
	}
}
