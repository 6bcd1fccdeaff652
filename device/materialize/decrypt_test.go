package materialize

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/text/unicode/norm"
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
	files, entryToWrite := 0, newDecryptedMapper(func(*tree.Entry) bool { return false }, nil)
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
	if b, err := os.ReadFile(filepath.Join(out.Dir, "_backup", mobilesync.ManifestDB)); err != nil || !bytes.HasPrefix(b, []byte("SQLite format 3")) {
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
		entryToWrite := newDecryptedMapper(func(*tree.Entry) bool { return false }, nil)
		seen := map[string]tree.Kind{}
		for range rapid.IntRange(1, 30).Draw(t, "files") {
			e := tree.Entry{Domain: odd.Draw(t, "domain"), Name: odd.Draw(t, "1") + "/" + odd.Draw(t, "2") + rapid.String().Draw(t, "3"), Path: "aa/blob"}
			out, ok := entryToWrite(&e)
			if !ok {
				t.Fatal("left out")
			}
			if err := folder.CheckPath(out.Path); err != nil {
				t.Fatalf("%q/%q became %q: %v", e.Domain, e.Name, out.Path, err)
			}
			folded := norm.NFC.String(strings.ToLower(out.Path))
			if kind, ok := seen[folded]; ok {
				t.Fatalf("%q twice, or also a folder: %v", folded, kind)
			}
			seen[folded] = tree.File
			for dir := path.Dir(folded); dir != "."; dir = path.Dir(dir) {
				if kind, ok := seen[dir]; ok && kind == tree.File {
					t.Fatalf("%q is a file and a folder", dir)
				}
				seen[dir] = tree.Dir
			}
		}
	})
}

// TestRenamed tests which files are listed because their path differs from their
// name.
func TestRenamed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("d", 200)+"/", 5)
	for _, test := range []struct{ names, paths []string }{
		{[]string{"a:b", "c"}, []string{"a%3Ab", "c"}},
		{[]string{"x", "x/y", "x/z"}, []string{"x", "x~2/y", "x~2/z"}},
		{[]string{"x/y", "X"}, []string{"x/y", "X~2"}},
		{[]string{"Foo", "foo/y"}, []string{"Foo", "foo~2/y"}},
		{[]string{"\u00e9", "e\u0301"}, []string{"\u00e9", "e\u0301~2"}},
		{[]string{strings.Repeat("n", 300), strings.Repeat("n", 301)}, []string{strings.Repeat("n", 200), strings.Repeat("n", 200) + "~2"}},
		{[]string{strings.Repeat("n", 255), strings.Repeat("N", 255)}, []string{strings.Repeat("n", 255), strings.Repeat("N", 200) + "~2"}},
		{[]string{"photo\u202egpj.exe", "\u2066x"}, []string{"photo%E280AEgpj.exe", "%E281A6x"}},
		{[]string{long + "f.txt", long + "g.txt"}, []string{long[:603] + "~", long[:603] + "~"}},
	} {
		var l lists
		entryToWrite := newDecryptedMapper(func(*tree.Entry) bool { return false }, &l)
		var paths []string
		for _, name := range test.names {
			out, _ := entryToWrite(&tree.Entry{Domain: "D", Name: name, Path: "aa/blob"})
			paths = append(paths, strings.TrimPrefix(out.Path, "D/"))
		}
		for i := range paths {
			if paths[i] != test.paths[i] && !(strings.HasSuffix(test.paths[i], "~") && strings.HasPrefix(paths[i], test.paths[i])) {
				t.Errorf("%.40q became %q, want %q", test.names[i], paths[i], test.paths[i])
			}
			changed := slices.ContainsFunc(l.renamed, func(r Renamed) bool { return r.Name == "D/"+test.names[i] && r.Path == "D/"+paths[i] })
			if want := paths[i] != test.names[i] && !strings.Contains(test.names[i], ":"); changed != want {
				t.Errorf("%.40q, %q: listed is %v", test.names[i], paths[i], changed)
			}
		}
	}
}
