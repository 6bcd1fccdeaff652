package extract

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/ramtemp"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

func TestMain(m *testing.M) {
	defer ramtemp.Use()()
	m.Run()
}

// hostile are names that no folder or archive may have, and some that are fine.
var hostile = []string{
	"D/a", "D/A", "D/../../etc/passwd", "D//etc/passwd", "../D/x", "D/..", "D/.", "D/a\\..\\..\\b", "C:/Windows/x", "D/CON", "D/con.txt", "D/LPT1/x",
	"D/a\x1b[2J", "D/a:b", "D/a\u202egpj.exe", "D/" + strings.Repeat("x", 300), "D/" + strings.Repeat("y/", 900) + "z", "D/e\u0301", "D/\u00e9",
	"D/trailing ", "D/trailing.", "D/a/b", "D/\xff\xfe", "D/\n", "/x/y", ".snap-/x",
}

// stored stores a snapshot of these names. The content of each is its name.
func stored(t *testing.T, names []string) []look.File {
	t.Helper()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	w := r.NewWriter(ctx)
	defer w.Close()
	content, b := w.NewContentWriter(), tree.NewBuilder(w.SaveNode, nil)
	var entries []tree.Entry
	for i, full := range names {
		c, err := content.Store(ctx, strings.NewReader(full), nil)
		if err != nil {
			t.Fatal(err)
		}
		domain, name, _ := strings.Cut(full, "/")
		entries = append(entries, tree.Entry{Domain: domain, Name: name, Path: fmt.Sprint(i), Content: c, Record: &tree.Record{ModTime: int64(i) * 1e9}})
	}
	slices.SortFunc(entries, func(a, b tree.Entry) int { return a.Key().Compare(b.Key()) })
	for i := range entries {
		if err := b.Add(ctx, &entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	s := &repo.Snapshot{Time: time.Unix(1, 0), Device: repo.Device{UDID: repotest.UDID}, Complete: true}
	var err error
	if s.Root, err = b.Finish(ctx); err == nil {
		err = errors.Join(content.Flush(ctx), w.Commit(ctx, s))
	}
	if err != nil {
		t.Fatal(err)
	}
	var files []look.File
	for f, err := range look.Open(r, s, nil).Files(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) != len(names) {
		t.Fatalf("%d files of %d", len(files), len(names))
	}
	return files
}

// readFolder returns the content of all files by their paths.
func readFolder(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func readTar(t *testing.T, b []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || h.Typeflag != tar.TypeReg {
			t.Fatalf("%s: type %c: %v", h.Name, h.Typeflag, err)
		}
		got[h.Name] = string(text)
	}
}

func readZip(t *testing.T, b []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.File {
		c, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = string(text)
	}
	return got
}

// All targets get the same files, and no name leads out of them.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	items := Plan(stored(t, hostile))
	want := map[string]string{}
	for _, it := range items {
		if !filepath.IsLocal(filepath.FromSlash(it.Target)) || strings.ContainsAny(it.Target, "\\:\x1b\n") {
			t.Errorf("%q would be written as %q", it.FullName(), it.Target)
		}
		want[it.Target] = it.FullName()
		if it.Domain == "" {
			want[it.Target] = "/" + it.Name
		}
	}
	if len(want) != len(hostile) {
		t.Fatalf("%d paths for %d files", len(want), len(hostile))
	}
	for i := range items {
		// A file without a domain keeps its path in the backup folder, not its name.
		if items[i].Domain == "" && !strings.HasPrefix(items[i].Target, "_backup/") {
			t.Errorf("%q is without a domain", items[i].Target)
		}
	}
	above := t.TempDir()
	dir := filepath.Join(above, "out")
	res, err := Folder(ctx, items, dir, nil)
	if err != nil || res.Files != int64(len(hostile)) || len(res.Lacking) > 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := readFolder(t, dir); !maps.Equal(got, want) {
		t.Errorf("folder: got %q, want %q", got, want)
	}
	if list, err := os.ReadDir(above); err != nil || len(list) != 1 {
		t.Errorf("beside the folder: %v, %v", list, err)
	}
	for format, read := range map[Format]func(*testing.T, []byte) map[string]string{Tar: readTar, Zip: readZip} {
		var b bytes.Buffer
		if _, err := Archive(ctx, items, &b, format, nil); err != nil {
			t.Fatal(err)
		}
		if got := read(t, b.Bytes()); !maps.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
	for _, it := range items {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(it.Target)))
		if err != nil || !info.ModTime().Equal(timeOf(&it)) {
			t.Errorf("time of %s: %v", it.Target, err)
		}
	}
	if _, err := Folder(ctx, items, dir, nil); !errors.Is(err, ErrTargetExists) {
		t.Error(err)
	}
}

// failing fails after some bytes.
type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(b []byte) (int, error) {
	n := min(len(b), f.left)
	f.left -= n
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

// An archive that cannot be written is an error, wherever it fails, and no program takes
// what there is of it for a complete archive.
func TestFailingArchives(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	items := Plan(stored(t, []string{"D/a", "D/b", "E/c.jpg"}))
	for _, format := range []Format{Tar, Zip} {
		var whole bytes.Buffer
		if _, err := Archive(ctx, items, &whole, format, nil); err != nil {
			t.Fatal(err)
		}
		for n := range whole.Len() {
			if _, err := Archive(ctx, items, &failing{n}, format, nil); !errors.Is(err, errFull) {
				t.Fatalf("%s: after %d bytes: %v", format, n, err)
			}
		}
		dir := t.TempDir()
		stopped, stop := context.WithCancel(ctx)
		stop()
		name := filepath.Join(dir, "x")
		if _, err := ArchiveFile(stopped, items, name, format, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if list, _ := os.ReadDir(dir); len(list) > 0 {
			t.Errorf("%v is left", list)
		}
		if _, err := ArchiveFile(ctx, items, name, format, nil); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, whole.Bytes()) {
			t.Errorf("%s: %d bytes, want %d: %v", format, len(b), whole.Len(), err)
		}
		if _, err := ArchiveFile(ctx, items, name, format, nil); !errors.Is(err, ErrTargetExists) {
			t.Error(err)
		}
	}
}

// An interruption leaves complete files only.
func TestInterruptedFolder(t *testing.T) {
	t.Parallel()
	items := Plan(stored(t, []string{"D/a", "D/b", "E/c", "E/d"}))
	for n := range items {
		ctx, stop := context.WithCancel(context.Background())
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := &stopping{folder: &folder{root: root, partial: ".snap-x"}, left: n, stop: stop}
		if _, err := write(ctx, items, s, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		root.Close()
		got := readFolder(t, dir)
		if len(got) > n+1 {
			t.Errorf("%d files after %d", len(got), n)
		}
		for path, text := range got {
			if path != text {
				t.Errorf("%s has %q", path, text)
			}
		}
	}
}

// stopping ends the run while a file is written.
type stopping struct {
	*folder
	left int
	stop func()
}

func (s *stopping) put(it *Item, c *look.Content) error {
	if s.left == 0 {
		s.stop()
	}
	s.left--
	return s.folder.put(it, c)
}
