package local_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/local"
)

var ctx = context.Background()

func create(t *testing.T) *local.Backend {
	t.Helper()
	b, err := local.Create(filepath.Join(t.TempDir(), "repository"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, b) })
	return b
}

func reopen(t *testing.T, b *local.Backend) *local.Backend {
	t.Helper()
	again, err := local.Open(b.Dir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, again) })
	return again
}

func closeStore(t *testing.T, b *local.Backend) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func put(t *testing.T, b backend.Backend, name, content string) {
	t.Helper()
	if err := b.Put(ctx, name, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, b backend.Backend, prefix string) []string {
	t.Helper()
	var names []string
	err := b.List(ctx, prefix, func(info backend.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Errorf("List(%q) = %v", prefix, err)
	}
	return names
}

// onDisk returns the names of all files and folders in a folder. Folders end with
// "/".
func onDisk(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if rel = filepath.ToSlash(rel); e.IsDir() {
			rel += "/"
		}
		names = append(names, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestContract(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(t *testing.T) backend.Backend { return create(t) })
}

func TestOnDisk(t *testing.T) {
	b := create(t)
	put(t, b, "config", "the configuration")
	put(t, b, "packs/ab/cd", "a pack")
	if err := b.Put(ctx, "config", nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("second Put = %v", err)
	}
	want := []string{"config", "packs/", "packs/ab/", "packs/ab/cd", "tmp/"}
	if got := onDisk(t, b.Dir()); !slices.Equal(got, want) {
		t.Errorf("the folder has %q, want %q", got, want)
	}
	if got, err := os.ReadFile(filepath.Join(b.Dir(), "packs", "ab", "cd")); err != nil || string(got) != "a pack" {
		t.Errorf("the pack holds %q, %v", got, err)
	}
	if got := list(t, reopen(t, b), ""); !slices.Equal(got, []string{"config", "packs/ab/cd"}) {
		t.Errorf("after Open List shows %q", got)
	}
}

func TestCreate(t *testing.T) {
	tests := []struct {
		about string
		files []string // folders end with a slash
		ok    bool
	}{
		{"empty", nil, true},
		{"files of the system", []string{".DS_Store", ".Trashes/501/x", "lost+found/", "System Volume Information/x", "$RECYCLE.BIN/a", "desktop.ini"}, true},
		{"an interrupted attempt", []string{"tmp/put-0123", "keys/", "packs/ab/"}, true},
		{"a repository", []string{"config"}, false},
		{"half a repository", []string{"keys/0123"}, false},
		{"deep down", []string{"a/b/c/d"}, false},
		{"other files", []string{"Holiday.mov"}, false},
		{"a file called tmp", []string{"tmp"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range tt.files {
				path := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				err := error(nil)
				if strings.HasSuffix(name, "/") {
					err = os.MkdirAll(path, 0o700)
				} else {
					err = os.WriteFile(path, nil, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before := onDisk(t, dir)
			b, err := local.Create(dir)
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				put(t, b, "config", "")
				closeStore(t, b)
				return
			}
			if !errors.Is(err, backend.ErrExist) || !strings.Contains(err.Error(), dir) || b != nil {
				t.Errorf("Create = %v, want ErrExist and the path", err)
			}
			if after := onDisk(t, dir); !slices.Equal(before, after) {
				t.Errorf("the folder changed from %q to %q", before, after)
			}
		})
	}
}

func TestCreateAndOpenRefuse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		about string
		open  func(string) (*local.Backend, error)
		dir   string
		kind  error  // nil means any kind
		text  string // text of the hint
	}{
		{"Open of a missing folder", local.Open, missing, fs.ErrNotExist, "connect it"},
		{"Open of a file", local.Open, file, nil, ""},
		{"Create on a file", local.Create, file, nil, ""},
		{"Create below a missing folder", local.Create, filepath.Join(missing, "repository"), fs.ErrNotExist, "the folder above"},
		{"Create below a file", local.Create, filepath.Join(file, "repository"), nil, ""},
	}
	for _, tt := range tests {
		b, err := tt.open(tt.dir)
		if err == nil {
			t.Errorf("%s succeeds", tt.about)
			closeStore(t, b)
			continue
		}
		if tt.kind != nil && !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.dir) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s = %v", tt.about, err)
		}
	}
	if got := onDisk(t, dir); !slices.Equal(got, []string{"file"}) {
		t.Errorf("the folder has %q", got)
	}
}

func TestForeignFilesAreLeftOut(t *testing.T) {
	b := create(t)
	put(t, b, "packs/ab/cd", "")
	for _, name := range []string{".DS_Store", "packs/ab/._cd", "packs/ab/CD2", "packs/README.txt", "tmp/put-1", "tmp/x", "Folder/x"} {
		path := filepath.Join(b.Dir(), filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"packs/ab/cd"}) {
		t.Errorf("List shows %q", got)
	}
}

func TestSymbolicLinks(t *testing.T) {
	b := create(t)
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, b, "keys/real", "real")
	links := map[string]string{
		"keys/inside":   "real",
		"keys/outside":  secret,
		"keys/dangling": "nothing",
		"snapshots":     outside,
		"inner":         "keys",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(b.Dir(), filepath.FromSlash(name))); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"keys/real"}) {
		t.Errorf("List shows %q", got)
	}
	for _, name := range []string{"keys/inside", "keys/outside", "keys/dangling"} {
		if _, err := b.Stat(ctx, name); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("Stat(%s) = %v", name, err)
		}
		if n, err := b.ReadAt(ctx, name, make([]byte, 10), 0); n != 0 || !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("ReadAt(%s) = %d, %v", name, n, err)
		}
		if err := b.Delete(ctx, name); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("Delete(%s) = %v", name, err)
		}
		if err := b.Put(ctx, name, nil); !errors.Is(err, backend.ErrExist) {
			t.Errorf("Put(%s) = %v", name, err)
		}
	}
	// A link must not look like an empty folder.
	for _, prefix := range []string{"snapshots/", "inner/"} {
		if err := b.List(ctx, prefix, func(backend.Info) error { return nil }); err == nil {
			t.Errorf("List(%s) of a link succeeds", prefix)
		}
	}
	if n, err := b.ReadAt(ctx, "snapshots/secret", make([]byte, 10), 0); n != 0 || err == nil || errors.Is(err, backend.ErrNotExist) {
		t.Errorf("ReadAt through a link to the outside = %d, %v", n, err)
	}
	for _, name := range []string{"snapshots/new", "inner/new"} {
		if err := b.Put(ctx, name, nil); err == nil {
			t.Errorf("Put(%s) through a link succeeds", name)
		}
	}
	if err := b.Delete(ctx, "snapshots/secret"); err == nil {
		t.Error("Delete through a link to the outside succeeds")
	}
	if got := onDisk(t, outside); !slices.Equal(got, []string{"secret"}) {
		t.Errorf("the folder outside has %q", got)
	}
}

func TestRepositoryBehindLink(t *testing.T) {
	b := create(t)
	put(t, b, "config", "x")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(b.Dir(), link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	through, err := local.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, through)
	put(t, through, "keys/a", "y")
	if got := list(t, b, ""); !slices.Equal(got, []string{"config", "keys/a"}) {
		t.Errorf("List shows %q", got)
	}
}

func TestRemoveStale(t *testing.T) {
	b := create(t)
	if n, err := b.RemoveStale(ctx, 24*time.Hour); n != 0 || err != nil {
		t.Errorf("RemoveStale of a new store = %d, %v", n, err)
	}
	put(t, b, "config", "x")
	tmp := filepath.Join(b.Dir(), "tmp")
	now := time.Now()
	for name, age := range map[string]time.Duration{"put-old": 25 * time.Hour, "put-new": 23 * time.Hour, "foreign": 100 * time.Hour} {
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(tmp, "put-folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if n, err := b.RemoveStale(cancelled, 0); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled RemoveStale = %d, %v", n, err)
	}
	if n, err := b.RemoveStale(ctx, 24*time.Hour); n != 1 || err != nil {
		t.Errorf("RemoveStale = %d, %v, want 1", n, err)
	}
	if got, want := onDisk(t, tmp), []string{"foreign", "put-folder/", "put-new"}; !slices.Equal(got, want) {
		t.Errorf("left in tmp: %q, want %q", got, want)
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"config"}) {
		t.Errorf("List shows %q", got)
	}
}

// endsAfter is a context that ends after a number of calls of Err.
type endsAfter struct {
	context.Context
	left int
}

func (c *endsAfter) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelledPutLeavesNothing(t *testing.T) {
	b := create(t)
	for left := range 4 {
		err := b.Put(&endsAfter{ctx, left}, "packs/ab/cd", make([]byte, 3<<20))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Put cancelled after %d checks = %v", left, err)
		}
		if got := onDisk(t, b.Dir()); len(got) > 1 || len(got) == 1 && got[0] != "tmp/" {
			t.Errorf("Put cancelled after %d checks leaves %q", left, got)
		}
	}
}

func TestFoldersMayDisappear(t *testing.T) {
	b := create(t)
	put(t, b, "packs/ab/1", "one")
	if err := b.Delete(ctx, "packs/ab/1"); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"packs", "tmp"} {
		if err := os.RemoveAll(filepath.Join(b.Dir(), folder)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, "packs/ab/2", "two")
	if got := list(t, b, ""); !slices.Equal(got, []string{"packs/ab/2"}) {
		t.Errorf("List shows %q", got)
	}
}

func TestWithoutPermission(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("permissions do not restrict this user")
	}
	b := create(t)
	put(t, b, "keys/a", "x")
	if err := os.Chmod(filepath.Join(b.Dir(), "tmp"), 0o500); err != nil {
		t.Fatal(err)
	}
	err := b.Put(ctx, "keys/b", nil)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), filepath.Join(b.Dir(), "keys", "b")) {
		t.Errorf("Put = %v", err)
	}
	put(t, reopen(t, create(t)), "config", "")
}

func BenchmarkReadAt(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			store, err := local.Create(filepath.Join(b.TempDir(), "repository"))
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			if err := store.Put(ctx, "packs/ab/cd", make([]byte, 16<<20)); err != nil {
				b.Fatal(err)
			}
			p := make([]byte, size)
			b.SetBytes(int64(size))
			off := int64(0)
			for b.Loop() {
				if _, err := store.ReadAt(ctx, "packs/ab/cd", p, off); err != nil {
					b.Fatal(err)
				}
				off = (off + int64(size)) % (16 << 20)
			}
		})
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			store, err := local.Create(filepath.Join(b.TempDir(), "repository"))
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for n := 0; b.Loop(); n++ {
				name := fmt.Sprintf("packs/%02x/%d", n%256, n)
				if err := store.Put(ctx, name, data); err != nil {
					b.Fatal(err)
				}
				if size > 1<<20 {
					if err := store.Delete(ctx, name); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// What is not a file and has the name of one is moved aside, and nothing is lost. What is
// not a folder and has the name of one holds no files.
func TestMoveAside(t *testing.T) {
	b := create(t)
	put(t, b, "config/inside", "kept")
	for n := 1; n <= 2; n++ {
		want := fmt.Sprintf("config.aside-%d", n)
		if aside, err := b.MoveAside(ctx, "config"); err != nil || aside != want {
			t.Fatalf("MoveAside = %q, %v, want %s", aside, err, want)
		}
		for _, name := range []string{"config", "nothing"} {
			if aside, err := b.MoveAside(ctx, name); err != nil || aside != "" {
				t.Errorf("MoveAside(%s) = %q, %v", name, aside, err)
			}
		}
		if err := os.Symlink("nothing", filepath.Join(b.Dir(), "config")); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	if got, err := backend.ReadAll(ctx, b, "config.aside-1/inside", 10); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
	put(t, b, "file", "good")
	if aside, err := b.MoveAside(ctx, "file"); err != nil || aside != "" {
		t.Errorf("MoveAside of a file = %q, %v", aside, err)
	}
	for _, name := range []string{"config", "file"} {
		_, errHas := b.HasFolder(ctx, name+"/")
		errList := b.List(ctx, name+"/", func(backend.Info) error { return nil })
		errPut := b.Put(ctx, name+"/below", nil)
		for _, err := range []error{errHas, errList, errPut} {
			if !errors.Is(err, backend.ErrNotFolder) || errors.Is(err, backend.ErrExist) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A folder or a link that has the name of a file that is named by a hash must not look as
// if the file had been deleted.
func TestNotRegular(t *testing.T) {
	b := create(t)
	hash := strings.Repeat("0123456789abcdef", 4)
	put(t, b, "snapshots/"+hash[1:]+"0", "good")
	kinds := map[string]func(path string) error{
		"keys/" + hash:       func(path string) error { return os.Mkdir(path, 0o700) },
		"snapshots/" + hash:  func(path string) error { return os.Symlink(hash[1:]+"0", path) },
		"packs/01/" + hash:   func(path string) error { return os.Symlink("nothing", path) },
		"packs/01/" + "file": func(path string) error { return os.Symlink("nothing", path) },
	}
	for name, make := range kinds {
		path := filepath.Join(b.Dir(), filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), make(path)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	if got, want := list(t, b, ""), []string{"keys/" + hash, "packs/01/" + hash, "snapshots/" + hash, "snapshots/" + hash[1:] + "0"}; !slices.Equal(got, want) {
		t.Errorf("List shows %q, want %q", got, want)
	}
	for name := range kinds {
		if !backend.IsHashed(name) {
			continue
		}
		_, errStat := b.Stat(ctx, name)
		_, errRead := b.ReadAt(ctx, name, make([]byte, 1), 0)
		for _, err := range []error{errStat, errRead, b.Put(ctx, name, nil)} {
			if err == nil || errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrExist) || !strings.Contains(err.Error(), "not a regular file") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := b.Delete(ctx, name); err != nil {
			t.Errorf("Delete(%s) = %v", name, err)
		}
		put(t, b, name, "again")
	}
	if got, err := backend.ReadAll(ctx, b, "snapshots/"+hash[1:]+"0", 10); err != nil || string(got) != "good" {
		t.Errorf("the target of a link has %q, %v", got, err)
	}
}
