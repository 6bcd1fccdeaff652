package materialize

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo/tree"
	"pgregory.net/rapid"
)

// TestDecryptGivesTheDevicesFiles compares the decrypted files with the blobs
// of a device that has the same content and does not encrypt.
func TestDecryptGivesTheDevicesFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r, s := encrypted(t, synthetic.DefaultPassword)
	out, err := WriteDecrypted(ctx, r, s, t.TempDir(), Options{Workers: 2, Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	plain := t.TempDir()
	devices, err := synthetic.Generate(ctx, plain, synthetic.Config{Seed: 3, StateDir: t.TempDir()}, 1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := mobilesync.Open(ctx, filepath.Join(plain, devices[0].UDID))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	records, err := b.Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	files, entryToWrite := 0, newDecryptedView()
	for _, rec := range records.All() {
		if !rec.IsFile() {
			continue
		}
		want, err := os.ReadFile(filepath.Join(b.Dir(), mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)))
		if err != nil {
			t.Fatal(err)
		}
		placed, _ := entryToWrite(&tree.Entry{Domain: rec.Domain, Name: rec.RelativePath})
		name := filepath.Join(out.Dir, filepath.FromSlash(placed.Path))
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s/%s: %d bytes, %v; want %d", rec.Domain, rec.RelativePath, len(got), err, len(want))
		}
		if info, err := os.Stat(name); err == nil && info.ModTime().Unix() != rec.ModTime {
			t.Errorf("%s/%s: mtime %d, want %d", rec.Domain, rec.RelativePath, info.ModTime().Unix(), rec.ModTime)
		}
		files++
	}
	if files < 100 {
		t.Errorf("only %d files", files)
	}
	if b, err := os.ReadFile(filepath.Join(out.Dir, noDomainFolder, mobilesync.ManifestDB)); err != nil || !bytes.HasPrefix(b, []byte("SQLite format 3")) {
		t.Errorf("Manifest.db: %.20q, %v", b, err)
	}
}

func TestDecryptRefusesALockedSnapshot(t *testing.T) {
	t.Parallel()
	r, s := encrypted(t, "")
	target := t.TempDir()
	if _, err := WriteDecrypted(context.Background(), r, s, target, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(target); len(left) > 0 {
		t.Errorf("left %v behind", left)
	}
}

// TestPathsAreSafeAndDistinct tests the paths that are chosen for arbitrary
// names.
func TestPathsAreSafeAndDistinct(t *testing.T) {
	t.Parallel()
	odd := rapid.SampledFrom([]string{"..", ".", "con", "a:b", "x.", "x ", "%", "é", "A", "a", "a~2", "\xff", "b\\c", "", "name"})
	rapid.Check(t, func(t *rapid.T) {
		entryToWrite := newDecryptedView()
		seen := map[string]bool{}
		for range rapid.IntRange(1, 30).Draw(t, "files") {
			e := tree.Entry{Domain: odd.Draw(t, "domain"), Name: odd.Draw(t, "1") + "/" + odd.Draw(t, "2") + rapid.String().Draw(t, "3"), Path: "aa/blob"}
			out, ok := entryToWrite(&e)
			if !ok {
				t.Fatal("left out")
			}
			if err := folder.CheckPath(out.Path); err != nil && len(out.Path) < 900 {
				t.Fatalf("%q/%q became %q: %v", e.Domain, e.Name, out.Path, err)
			}
			if folded := filepath.ToSlash(out.Path); seen[folded] {
				t.Fatalf("%q twice", folded)
			} else {
				seen[folded] = true
			}
		}
	})
}
