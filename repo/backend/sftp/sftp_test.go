package sftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	pkgsftp "github.com/pkg/sftp"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
)

// opensshServer returns OpenSSH's sftp-server. If it is missing, the test is skipped,
// unless SNAP_TEST_INTEROP is set.
func opensshServer(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	if os.Getenv("SNAP_TEST_INTEROP") != "" {
		t.Fatal("sftp-server is missing")
	}
	t.Skip("sftp-server is missing")
	return ""
}

func folder(t testing.TB) Config {
	return Config{Host: "nas", Path: filepath.ToSlash(filepath.Join(t.TempDir(), "repository"))}
}

func create(t testing.TB, c Config, opts Options) *Backend {
	t.Helper()
	b, err := Create(t.Context(), c, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func put(t testing.TB, b *Backend, name, data string) {
	t.Helper()
	if err := b.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func list(t testing.TB, b *Backend) (names []string) {
	t.Helper()
	err := b.List(t.Context(), "", func(i backend.Info) error { names = append(names, i.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// onDisk returns the paths of all files and folders below the folder of c.
func onDisk(t testing.TB, c Config) (names []string) {
	t.Helper()
	err := filepath.WalkDir(c.Path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != c.Path {
			rel, _ := filepath.Rel(c.Path, path)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestInteropBackend(t *testing.T) {
	t.Parallel()
	server := opensshServer(t)
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return create(t, folder(t), Options{Command: server})
	})
}

// goServer is the server of package pkg/sftp, which has no fsync, and replaces files when
// it renames. Without extensions it also has no hard links and no free space.
func goServer() (link, error) {
	here, there := net.Pipe()
	s, err := pkgsftp.NewServer(there)
	if err != nil {
		return link{}, err
	}
	ended := make(chan struct{})
	go func() {
		_ = s.Serve()
		_ = there.Close()
		close(ended)
	}()
	return link{
		in: here, out: here, connected: func() {},
		kill: func() { _ = here.Close() },
		wait: func() error { <-ended; return nil },
	}, nil
}

func TestWithoutExtensions(t *testing.T) {
	t.Parallel()
	if err := pkgsftp.SetSFTPExtensions(); err != nil {
		t.Fatal(err)
	}
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		b := create(t, folder(t), Options{dial: goServer})
		b.AllowNoFsync()
		return b
	})
	c := folder(t)
	b := create(t, c, Options{dial: goServer})
	if err := b.Put(t.Context(), "config", nil); !errors.Is(err, backend.ErrNoFsync) || !strings.Contains(err.Error(), "fsync@openssh.com") {
		t.Errorf("Put without fsync = %v", err)
	}
	if got := onDisk(t, c); len(got) != 0 {
		t.Errorf("a refused Put leaves %q", got)
	}
	if f, err := b.Probe(t.Context()); err != nil || f != (Features{}) {
		t.Errorf("Probe = %+v, %v", f, err)
	}
	if free, err := b.Free(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Free = %d, %v", free, err)
	}
}

func TestInteropFeatures(t *testing.T) {
	b := create(t, folder(t), Options{Command: opensshServer(t)})
	if f, err := b.Probe(t.Context()); err != nil || f != (Features{true, true, true, true}) {
		t.Errorf("Probe = %+v, %v", f, err)
	}
	if free, err := b.Free(t.Context()); err != nil || free < 1<<20 {
		t.Errorf("Free = %d, %v", free, err)
	}
}

func TestInteropModes(t *testing.T) {
	server := opensshServer(t)
	for _, shared := range []bool{false, true} {
		c := folder(t)
		b := create(t, c, Options{Command: server})
		want := map[string]fs.FileMode{"": fs.ModeDir | 0o700, "packs": fs.ModeDir | 0o700, "packs/ab/cd": 0o600, "tmp": fs.ModeDir | 0o700}
		if shared {
			want = map[string]fs.FileMode{"": fs.ModeDir | fs.ModeSetgid | 0o770, "packs": fs.ModeDir | fs.ModeSetgid | 0o770, "packs/ab/cd": 0o660}
			if err := os.Chmod(c.Path, fs.ModeSetgid|0o770); err != nil {
				t.Fatal(err)
			}
			var err error
			if b, err = Open(t.Context(), c, Options{Command: server}); err != nil {
				t.Fatal(err)
			}
			defer b.Close()
		}
		put(t, b, "packs/ab/cd", "x")
		for name, mode := range want {
			info, err := os.Stat(filepath.Join(c.Path, name))
			if err != nil || info.Mode() != mode {
				t.Errorf("shared %v: %q has mode %v, %v, want %v", shared, name, info.Mode(), err, mode)
			}
		}
		if got := onDisk(t, c); !slices.Equal(got, []string{"packs", "packs/ab", "packs/ab/cd", "tmp"}) {
			t.Errorf("the folder has %q", got)
		}
	}
}

func TestInteropCreate(t *testing.T) {
	opts := Options{Command: opensshServer(t)}
	for about, files := range map[string][]string{
		"system": {".DS_Store", "lost+found/", "tmp/put-1", "packs/ab/"},
		"full":   {"a/b/c"},
		"config": {"config"},
	} {
		c := folder(t)
		for _, name := range files {
			path := filepath.Join(c.Path, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, "/") {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			} else if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		b, err := Create(t.Context(), c, opts)
		if about == "system" {
			if err != nil {
				t.Error(err)
			} else {
				put(t, b, "config", "")
				_ = b.Close()
			}
			continue
		}
		if !errors.Is(err, backend.ErrExist) || !strings.Contains(err.Error(), "choose a new or empty folder") {
			t.Errorf("%s: Create = %v", about, err)
		}
	}
	missing, file := folder(t), folder(t)
	if err := os.WriteFile(file.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	below := Config{Host: "nas", Path: missing.Path + "/deeper"}
	for _, tt := range []struct {
		about string
		open  func(context.Context, Config, Options) (*Backend, error)
		c     Config
		kind  error
		text  string
	}{
		{"Open of a missing folder", Open, missing, fs.ErrNotExist, "check the path"},
		{"Open of a file", Open, file, backend.ErrNotFolder, ""},
		{"Create on a file", Create, file, backend.ErrNotFolder, "move it away"},
		{"Create below a missing folder", Create, below, fs.ErrNotExist, "the folder above"},
	} {
		b, err := tt.open(t.Context(), tt.c, opts)
		if b != nil || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), tt.c.String()) {
			t.Errorf("%s = %v", tt.about, err)
		}
	}
}

func TestInteropOddFiles(t *testing.T) {
	c := folder(t)
	b := create(t, c, Options{Command: opensshServer(t)})
	hash := strings.Repeat("0123456789abcdef", 4)
	put(t, b, "keys/real", "real")
	for _, name := range []string{".DS_Store", "keys/._real", "keys/Foreign", "tmp/put-1"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(c.Path, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.Path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	for name, target := range map[string]string{"keys/link": "real", "keys/" + hash: "real", "snapshots": outside} {
		if err := os.Symlink(target, filepath.Join(c.Path, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, b); !slices.Equal(got, []string{"keys/" + hash, "keys/real"}) {
		t.Errorf("List shows %q", got)
	}
	if err := b.Put(t.Context(), "snapshots/new", nil); !errors.Is(err, backend.ErrNotFolder) {
		t.Errorf("Put through a link = %v", err)
	}
	if err := b.List(t.Context(), "snapshots/", nil); !errors.Is(err, backend.ErrNotFolder) {
		t.Errorf("List through a link = %v", err)
	}
	_, errStat := b.Stat(t.Context(), "keys/"+hash)
	_, errRead := b.ReadAt(t.Context(), "keys/"+hash, make([]byte, 1), 0)
	for _, err := range []error{errStat, errRead, b.Put(t.Context(), "keys/"+hash, nil)} {
		if !errors.Is(err, backend.ErrNotRegular) || errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrExist) {
			t.Errorf("link with the name of a hash: %v", err)
		}
	}
	for _, err := range []error{b.Delete(t.Context(), "keys/link"), b.Delete(t.Context(), "snapshots")} {
		if !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("Delete of a link = %v", err)
		}
	}
	if err := b.Delete(t.Context(), "keys/"+hash); err != nil {
		t.Errorf("Delete of a link with the name of a hash = %v", err)
	}
	if has, err := b.HasFolder(t.Context(), "keys/"); !has || err != nil {
		t.Errorf("HasFolder = %v, %v", has, err)
	}
	if _, err := b.HasFolder(t.Context(), "snapshots/"); !errors.Is(err, backend.ErrNotFolder) {
		t.Errorf("HasFolder of a link = %v", err)
	}
	if aside, err := b.MoveAside(t.Context(), "snapshots"); err != nil || aside != "snapshots.aside-1" {
		t.Errorf("MoveAside = %q, %v", aside, err)
	}
	if err := b.MakeFolder(t.Context(), "snapshots/"); err != nil {
		t.Error(err)
	}
	if got, err := backend.ReadAll(t.Context(), b, "keys/real", 10); err != nil || string(got) != "real" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestInteropRemoveStale(t *testing.T) {
	c := folder(t)
	b := create(t, c, Options{Command: opensshServer(t)})
	put(t, b, "config", "x")
	for name, age := range map[string]time.Duration{"put-old": 25 * time.Hour, "put-new": 23 * time.Hour, "foreign": 100 * time.Hour} {
		path := filepath.Join(c.Path, "tmp", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.RemoveStale(t.Context(), 24*time.Hour); n != 1 || err != nil {
		t.Errorf("RemoveStale = %d, %v, want 1", n, err)
	}
	if got := onDisk(t, c); !slices.Equal(got, []string{"config", "tmp", "tmp/foreign", "tmp/put-new"}) {
		t.Errorf("left: %q", got)
	}
}

// What another process deletes or replaces must not be read from a file that is still
// open.
func TestInteropReplacedWhileOpen(t *testing.T) {
	c := folder(t)
	b := create(t, c, Options{Command: opensshServer(t)})
	put(t, b, "packs/ab/cd", strings.Repeat("old", 100))
	read := func() (string, error) {
		p := make([]byte, 3)
		n, err := b.ReadAt(t.Context(), "packs/ab/cd", p, 3)
		return string(p[:n]), err
	}
	if got, err := read(); err != nil || got != "old" {
		t.Fatalf("%q, %v", got, err)
	}
	path := filepath.Join(c.Path, "packs/ab/cd")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := read(); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("after its removal: %q, %v", got, err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("new"), 50), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := read(); err != nil || got != "new" {
		t.Errorf("%q, %v", got, err)
	}
	b.connecting <- struct{}{}
	for range 3 * maxOpen { // more files than stay open
		b.current.open.add(strings.Repeat("x", len(b.current.open.files)+1), nil, info{}).gone = true
	}
	if n := len(b.current.open.files); n > maxOpen {
		t.Errorf("%d files are open", n)
	}
	b.current.open.forget()
	<-b.connecting
}

type info struct{ fs.FileInfo }

func (info) Size() int64        { return 0 }
func (info) ModTime() time.Time { return time.Time{} }

func TestDenied(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("permissions do not restrict this user")
	}
	c := folder(t)
	b := create(t, c, Options{Command: opensshServer(t)})
	if err := os.Chmod(c.Path, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "config", nil); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "check the owner") {
		t.Errorf("Put = %v", err)
	}
}

// TestExplain checks what is made of the answers of servers of version 3 and later.
func TestExplain(t *testing.T) {
	b := newBackend(Config{Host: "nas", Path: "/backup"}, Options{})
	for _, tt := range []struct {
		code uint32
		want error
	}{{codeNoSpace, backend.ErrNoSpace}, {codeQuota, backend.ErrNoSpace}, {codeReadOnly, fs.ErrPermission}} {
		err := b.explain(nil, &pkgsftp.StatusError{Code: tt.code}, 0)
		if !errors.Is(err, tt.want) || !strings.Contains(b.opError("put", "config", err).Error(), "(") {
			t.Errorf("code %d: %v", tt.code, err)
		}
	}
	if err := b.explain(nil, io.EOF, 0); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
