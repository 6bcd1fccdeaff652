package materialize

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// storeTree writes a snapshot of made-up entries. Every file has data as its
// content.
func storeTree(r *repo.Repo, s *repo.Snapshot, entries []tree.Entry, data string) error {
	ctx := context.Background()
	w := r.NewWriter(ctx)
	defer w.Close()
	content := w.NewContentWriter()
	b := tree.NewBuilder(w.SaveNode, nil)
	slices.SortFunc(entries, func(a, b tree.Entry) int { return a.Key().Compare(b.Key()) })
	for i := range entries {
		e := &entries[i]
		if e.Kind == tree.File {
			var err error
			if e.Content, err = content.Store(ctx, strings.NewReader(data), nil); err != nil {
				return err
			}
		}
		if err := b.Add(ctx, e); err != nil {
			return err
		}
	}
	if err := content.Flush(ctx); err != nil {
		return err
	}
	var err error
	if s.Root, err = b.Finish(ctx); err != nil {
		return err
	}
	return w.Commit(ctx, s)
}

// guarded runs a test with a target folder, and reports an error if anything
// outside the target changes.
func guarded(t *testing.T, run func(target string)) {
	t.Helper()
	around := t.TempDir()
	target := filepath.Join(around, "a", "target")
	for _, name := range []string{"sentinel", "a/sentinel"} {
		path := filepath.Join(around, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	outside := func() foldertest.Contents {
		p := foldertest.MustRead(t, around)
		for path := range p {
			if path == "a/target" || strings.HasPrefix(path, "a/target/") {
				delete(p, path)
			}
		}
		return p
	}
	before := outside()
	run(target)
	if err := before.Diff(outside()); err != nil {
		t.Errorf("outside the target: %v", err)
	}
}

func file(path string) tree.Entry {
	return tree.Entry{Path: path, Mode: 0o644, ModTime: tree.AtSecond(1e9)}
}
func directory(path string) tree.Entry { return tree.Entry{Path: path, Kind: tree.Dir, Mode: 0o755} }

// A tree that no import would write is refused before any file is written.
// Nothing outside the target is touched.
func TestHostileTreesAreRefused(t *testing.T) {
	t.Parallel()
	in := func(domain string, e tree.Entry) tree.Entry { e.Domain, e.Name = domain, e.Path; return e }
	for _, test := range []struct {
		name    string
		entries []tree.Entry
	}{
		{"backslashes", []tree.Entry{file(`..\..\sentinel`)}},
		{"drive", []tree.Entry{file("C:/sentinel")}},
		{"stream", []tree.Entry{file("file:stream")}},
		{"device", []tree.Entry{file("NUL")}},
		{"control character", []tree.Entry{file("a\nb")}},
		{"invalid UTF-8", []tree.Entry{file("a\xffb")}},
		{"dots on Windows", []tree.Entry{file("a/... /b")}},
		{"long name", []tree.Entry{file(strings.Repeat("x", 256))}},
		{"long path", []tree.Entry{file(strings.Repeat("xxxxxxx/", 200) + "x")}},
		{"file twice", []tree.Entry{file("a"), in("HomeDomain", file("a"))}},
		{"file and folder", []tree.Entry{file("a"), in("HomeDomain", directory("a"))}},
		{"file below a file", []tree.Entry{file("a"), file("a/b")}},
		{"folder below a file", []tree.Entry{in("HomeDomain", file("a")), directory("a/b/c")}},
		{"file above a file", []tree.Entry{in("HomeDomain", file("a")), file("a/b/c")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := repotest.Create(t, memory.New())
			s := &repo.Snapshot{Device: repo.Device{UDID: foldertest.UDID}}
			if err := storeTree(r, s, test.entries, "hostile"); err != nil {
				t.Fatal(err)
			}
			guarded(t, func(target string) {
				if _, err := Write(t.Context(), r, s, target, Options{}); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("got %v", err)
				}
				files := 0
				for path, what := range foldertest.MustRead(t, target) {
					if strings.HasPrefix(what, "-") {
						t.Errorf("%s was written", path)
						files++
					}
				}
			})
		})
	}
}

// A folder name from a device or a host cannot point outside the target.
func TestHostileFolderNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", "../../x", "/etc/x", `..\x`, "a/b", "a\x00b", "CON", "x ", "C:"} {
		for _, s := range []*repo.Snapshot{{Device: repo.Device{UDID: name}, Source: repo.Source{Folder: ".."}}, {Source: repo.Source{Folder: name}}} {
			r := repotest.Create(t, memory.New())
			if err := storeTree(r, s, []tree.Entry{file("a")}, "x"); err != nil {
				t.Fatal(err)
			}
			guarded(t, func(target string) {
				if res, err := Write(t.Context(), r, s, target, Options{Replace: true}); err == nil {
					t.Errorf("%q was written as %s", name, res.Dir)
				}
				if got := foldertest.MustRead(t, target); len(got) > 0 {
					t.Errorf("%q left %v", name, got)
				}
			})
		}
	}
}

// Files with odd modes and times are written. Of modes, only permission bits are
// restored. Times that the file system cannot hold are counted.
func TestOddModesAndTimes(t *testing.T) {
	t.Parallel()
	entries := []tree.Entry{directory("dir")}
	entries[0].Mode = math.MaxUint32
	for i, mode := range []uint32{0, 0o4755, 0o7777, math.MaxUint32, 0o400} {
		e := file(string(rune('a' + i)))
		e.Mode = mode
		entries = append(entries, e)
	}
	year2400 := tree.At(time.Date(2400, 1, 1, 0, 0, 0, 1, time.UTC))
	for i, mtime := range []tree.Time{
		{}, tree.AtNanosecond(-1), tree.AtNanosecond(math.MaxInt64), tree.AtNanosecond(math.MinInt64), tree.At(time.Date(2100, 1, 1, 0, 0, 0, 1, time.UTC)),
		year2400, tree.At(time.Time{}), tree.AtSecond(math.MaxInt64), tree.AtSecond(math.MinInt64),
	} {
		e := file(string(rune('A' + i)))
		e.ModTime = mtime
		entries = append(entries, e)
	}
	r := repotest.Create(t, memory.New())
	s := &repo.Snapshot{Device: repo.Device{UDID: foldertest.UDID}}
	// Number the files, since Write refuses names that differ only by case if the
	// file system ignores case.
	for i := range entries {
		if entries[i].Kind == tree.File {
			entries[i].Path = entries[i].Path + time.Unix(int64(i), 0).UTC().Format("05")
		}
	}
	if err := storeTree(r, s, entries, "content"); err != nil {
		t.Fatal(err)
	}
	res, err := Write(t.Context(), r, s, t.TempDir(), Options{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	other := int64(0)
	for _, e := range entries {
		info, err := os.Lstat(filepath.Join(res.Dir, e.Path))
		if err != nil {
			t.Error(err)
			continue
		}
		if special := info.Mode() & (os.ModeSetuid | os.ModeSetgid | os.ModeSticky); special != 0 || info.Mode()&0o600 != 0o600 {
			t.Errorf("mode %o came back as %v", e.Mode, info.Mode())
		}
		got := tree.At(info.ModTime())
		if got != e.ModTime {
			other++
		}
		exact := e.ModTime.Compare(tree.AtSecond(-1)) >= 0 && e.ModTime.Compare(tree.AtSecond(9e9)) <= 0 || e.ModTime == year2400 && runtime.GOOS == "linux"
		if exact && got != e.ModTime {
			t.Errorf("mtime %v came back as %v", e.ModTime, got)
		}
	}
	if res.OtherTimes != other || res.OtherModes != 0 {
		t.Errorf("other times: %d, want %d; other modes: %d", res.OtherTimes, other, res.OtherModes)
	}
}

// Different names that a file system treats as one are reported before anything
// is written. If they are not recognized by then, the lost file is noticed at
// the end.
func TestTwins(t *testing.T) {
	t.Parallel()
	r := repotest.Create(t, memory.New())
	s := &repo.Snapshot{Device: repo.Device{UDID: foldertest.UDID}}
	if err := storeTree(r, s, []tree.Entry{file("dir/Name"), file("dir/name"), file("dir/other"), file("UPPER")}, "x"); err != nil {
		t.Fatal(err)
	}
	m := &job{r: r, newMapper: asStored, opts: Options{Progress: &blob.Progress{}}, res: &Result{}}
	dir := t.TempDir()
	if err := m.fill(t.Context(), s, dir); err != nil {
		t.Skipf("this file system ignores case: %v", err)
	}
	if err := m.refuseTwins(t.Context(), s); err == nil || !strings.Contains(err.Error(), "dir/Name") || !strings.Contains(err.Error(), "dir/name") {
		t.Errorf("got %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m.root = root
	if err := m.checkComplete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := root.Rename("dir", "dir of another name"); err != nil {
		t.Fatal(err)
	}
	if err := m.checkComplete(t.Context()); err != nil {
		t.Errorf("the file system changes names: %v", err)
	}
	if err := root.Remove("dir of another name/Name"); err != nil {
		t.Fatal(err)
	}
	if err := m.checkComplete(t.Context()); err == nil || !strings.Contains(err.Error(), "4 of 5") {
		t.Errorf("one file is missing: %v", err)
	}
}
