package mobilesync

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
	"github.com/snap-backup/snap/internal/faultpoint"
)

func TestFiles(t *testing.T) {
	dir := backupSpec{rows: manifesttest.Rows()}.build(t)
	put(t, dir, "z/deep/er/file", []byte("four"))
	put(t, dir, ".DS_Store", []byte("x"))
	b := mustOpen(t, dir)
	var names []string
	for f, err := range b.Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil {
			t.Fatal(err)
		}
		if f.Dir != info.IsDir() || f.Skipped != "" || !f.ModTime.Equal(info.ModTime()) || f.Mode != info.Mode() || !f.Dir && f.Size != info.Size() {
			t.Errorf("%+v, want %v", f, info)
		}
		if runtime.GOOS == "linux" && (f.Inode == 0 || f.ChangeTime == 0) {
			t.Errorf("%s: inode %d, change time %d", f.Path, f.Inode, f.ChangeTime)
		}
		names = append(names, f.Path)
	}
	var want []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			want = append(want, filepath.ToSlash(rel))
		}
		return err
	})
	if !slices.Equal(names, want) {
		t.Errorf("%d names, want %d", len(names), len(want))
	}
	n := 0
	for range b.Files(t.Context()) { // stopping early must not leave goroutines behind
		if n++; n == 7 {
			break
		}
	}
}

func TestOpenFile(t *testing.T) {
	dir := backupSpec{}.build(t)
	put(t, dir, "aa/file", []byte("content"))
	outside := filepath.Join(t.TempDir(), "secret")
	put(t, filepath.Dir(outside), "secret", []byte("secret"))
	b := mustOpen(t, dir)
	f, err := b.OpenFile("aa/file")
	if err != nil {
		t.Fatal(err)
	}
	var buf [16]byte
	if n, _ := f.Read(buf[:]); string(buf[:n]) != "content" {
		t.Errorf("read %q", buf[:n])
	}
	f.Close()
	for _, path := range []string{"", ".", "..", "../x", "/etc/passwd", "aa/../aa/file", "aa//file", "aa/", "aa", "none", "aa/none", "aa/file/x", `aa\file`} {
		if f, err := b.OpenFile(path); err == nil {
			f.Close()
			t.Errorf("%q was opened", path)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	os.Symlink(filepath.Join(dir, "aa"), filepath.Join(dir, "linked"))
	os.Symlink("aa", filepath.Join(dir, "inside"))
	os.Symlink("file", filepath.Join(dir, "aa", "same"))
	for _, path := range []string{"link", "linked/file", "inside/file", "aa/same"} {
		if f, err := b.OpenFile(path); err == nil {
			f.Close()
			t.Errorf("%q was opened through a link", path)
		}
	}
	skipped := map[string]string{}
	for f, err := range b.Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Skipped != "" {
			skipped[f.Path] = f.Skipped
		}
		if strings.HasPrefix(f.Path, "linked/") {
			t.Errorf("%s was listed", f.Path)
		}
	}
	if len(skipped) != 4 || skipped["linked"] != "symbolic link" {
		t.Errorf("skipped %v", skipped)
	}
}

func TestLinksAtTheTopAreNotFollowed(t *testing.T) {
	dir := backupSpec{}.build(t)
	other := backupSpec{}.build(t)
	for _, name := range []string{StatusPlist, ManifestDB} {
		os.Remove(filepath.Join(dir, name))
		if err := os.Symlink(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	b := mustOpen(t, dir)
	if got, want := kinds(mustProblems(t, b), true), []ProblemKind{ProblemManifest, ProblemStatusPlist}; !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", mustProblems(t, b), want)
	}
	if _, err := b.Records(t.Context()); err == nil {
		t.Error("rows were read through a link")
	}
}

func TestHostileNames(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("this system has no such names")
	}
	dir := backupSpec{}.build(t)
	put(t, dir, `aa/x\y`, nil)
	put(t, dir, "Icon\r", nil)
	put(t, dir, "bad\xff/inside", nil)
	b := mustOpen(t, dir)
	skipped := 0
	for f, err := range b.Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.Path, "inside") {
			t.Errorf("%q was listed", f.Path)
		}
		if f.Skipped != "" {
			skipped++
			if _, err := b.OpenFile(f.Path); err == nil {
				t.Errorf("%q was opened", f.Path)
			}
		}
	}
	if skipped != 3 {
		t.Errorf("%d skipped", skipped)
	}
	if report := mustCompare(t, b, mustRecords(t, b)); report.Other.Count != 3 {
		t.Errorf("report %+v", report)
	}
}

// manyFiles returns a backup folder with n empty blobs.
func manyFiles(t testing.TB, n int, layout Layout) string {
	dir := t.TempDir()
	put(t, dir, StatusPlist, manifesttest.Plist(dict{}))
	for i := range n {
		id := manifesttest.FileID("d", fmt.Sprint(i))
		path := filepath.Join(dir, filepath.FromSlash(BlobPath(layout, id)))
		if i < 4096 { // by then, each of the 256 folders exists, but for a vanishing chance
			os.MkdirAll(filepath.Dir(path), 0o755)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestManyFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("writes thousands of files")
	}
	// The attributes in a flat folder are read in batches of 4,096.
	sizes := map[Layout]int{Hashed: 1_000, Flat: 4_200}
	if faultpoint.All() { // SNAP_TEST_ALL
		sizes = map[Layout]int{Hashed: 20_000, Flat: 10_000}
	}
	for layout, n := range sizes {
		b := mustOpen(t, manyFiles(t, n, layout))
		count := 0
		began := time.Now()
		for f, err := range b.Files(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if !f.Dir {
				count++
			}
		}
		took := time.Since(began)
		t.Logf("%s: %d files in %v", layout, count, took)
		if count != n+1 {
			t.Errorf("%d files", count)
		}
	}
}

func BenchmarkFiles(b *testing.B) {
	for _, layout := range []Layout{Hashed, Flat} {
		dir := manyFiles(b, 100_000, layout)
		b.Run(layout.String(), func(b *testing.B) {
			backup := mustOpen(b, dir)
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range backup.Files(b.Context()) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
