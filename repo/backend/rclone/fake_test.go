package rclone

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/retry"
)

// fake is a program in the place of rclone that fails as SNAP_TEST_FAKE_RCLONE says. It has
// the files of a folder, so that it knows them when it is started again.
type fake struct {
	mu    sync.Mutex
	dir   string
	mode  string
	count int // requests so far
}

// TestFakeRclone is the program that the other tests start.
func TestFakeRclone(t *testing.T) {
	mode := os.Getenv("SNAP_TEST_FAKE_RCLONE")
	if mode == "" {
		t.Skip("only for other tests")
	}
	f := &fake{mode: mode, dir: os.Getenv("SNAP_TEST_FAKE_DIR")}
	switch mode {
	case "refuses":
		fmt.Fprintln(os.Stderr, "2026/12/01 02:10:20 Failed to create file system for \"drive:\": didn't find section in config file")
		os.Exit(1)
	case "silent":
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: f, Protocols: protocols, ReadHeaderTimeout: time.Minute}
	_ = server.Serve(&stdio{})
	os.Exit(0)
}

// stdio is a listener with one connection: the standard input and output.
type stdio struct{ accepted bool }

func (s *stdio) Accept() (net.Conn, error) {
	if s.accepted {
		select {}
	}
	s.accepted = true
	return &stdioConn{&pipe{in: os.Stdout, out: os.Stdin, read: make(chan struct{})}}, nil
}
func (s *stdio) Close() error   { return nil }
func (s *stdio) Addr() net.Addr { return &net.UnixAddr{} }

type stdioConn struct{ *pipe }

func (c *stdioConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err != nil {
		os.Exit(0)
	}
	return n, err
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Server", "rclone/v1.60.1")
	if strings.HasPrefix(f.mode, "new ") {
		w.Header().Set("Server", "rclone/v1.75.0")
	}
	mode := strings.TrimPrefix(f.mode, "new ")
	name := strings.TrimPrefix(r.URL.Path, "/")
	if step := os.Getenv("SNAP_TEST_FAKE_STEP"); step != "" {
		f.dieAt(r, step, name)
	}
	if _, err := os.Stat(f.dir + "/broken"); err == nil { // from the second request on
		switch {
		case mode == "not found" || mode == "get not found" && r.Method != http.MethodHead:
			http.Error(w, "Not Found", http.StatusNotFound)
			return
		case mode == "fails" && r.Method == http.MethodPost:
			fmt.Fprintf(os.Stderr, "2026/12/01 ERROR : %s: Post request put error: googleapi: Error 403: %s\n", path.Base(name), os.Getenv("SNAP_TEST_FAKE_TEXT"))
			http.Error(w, "Internal Server Error", http.StatusInternalServerError)
			return
		case mode == "stranger":
			w.Header().Del("Server")
			_, _ = w.Write([]byte("[]"))
			return
		case mode == "dies":
			_, _ = io.CopyN(io.Discard, r.Body, 10)
			os.Exit(1)
		}
	}
	f.serve(w, r, mode, name)
}

// dieAt ends the program in the middle of the request with this number, once. A file that is
// being put then stays in part.
func (f *fake) dieAt(r *http.Request, step, name string) {
	died := f.dir + "/../died" + step
	if _, err := os.Stat(died); err == nil {
		return
	}
	if f.count++; fmt.Sprint(f.count) != step {
		return
	}
	_ = os.WriteFile(died, nil, 0o600)
	if r.Method == http.MethodPost {
		data, _ := io.ReadAll(io.LimitReader(r.Body, 5))
		_ = os.WriteFile(f.dir+"/"+strings.ReplaceAll(name, "/", "="), data, 0o600)
	}
	os.Exit(1)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, mode, name string) {
	file := f.dir + "/" + strings.ReplaceAll(name, "/", "=")
	data, err := os.ReadFile(file)
	switch {
	case strings.HasSuffix(name, "/") || name == "":
		list := []entry{}
		entries, _ := os.ReadDir(f.dir)
		for _, e := range entries {
			if full := strings.ReplaceAll(e.Name(), "=", "/"); strings.HasPrefix(full, name) && e.Name() != "broken" {
				info, _ := e.Info()
				list = append(list, entry{path.Base(full), info.Size()})
			}
		}
		b, _ := json.Marshal(list)
		if mode == "short list" {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			b = b[:len(b)/2]
		}
		_, _ = w.Write(b)
	case r.Method == http.MethodPost:
		data, _ := io.ReadAll(r.Body)
		if mode == "half" {
			data = data[:len(data)/2]
		}
		_ = os.WriteFile(file, data, 0o600)
		if mode == "lost" {
			os.Exit(1)
		}
	case err != nil:
		http.Error(w, "Not Found", http.StatusNotFound)
	case r.Method == http.MethodDelete:
		_ = os.Remove(file)
	default:
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(data)
		}
	}
}

// startFake returns a store with a fake that begins to fail when a test calls breaks.
func startFake(t *testing.T, mode string) (b *Backend, breaks func()) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "remote")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SNAP_TEST_FAKE_RCLONE", mode)
	t.Setenv("SNAP_TEST_FAKE_DIR", dir)
	b, err := Open(t.Context(), Config{Remote: "drive"}, Options{Program: "'" + os.Args[0] + "' -test.run=^TestFakeRclone$"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, func() {
		if err := os.WriteFile(dir+"/broken", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func all(t *testing.T, b *Backend, name string) map[string]error {
	_, errStat := b.Stat(t.Context(), name)
	_, errRead := b.ReadAt(t.Context(), name, make([]byte, 1), 0)
	_, errFile := b.ReadFile(t.Context(), name, 100)
	return map[string]error{
		"Stat": errStat, "ReadAt": errRead, "ReadFile": errFile,
		"Put": b.Put(t.Context(), "keys/b", []byte("x")), "Delete": b.Delete(t.Context(), name),
		"List": b.List(t.Context(), "keys/", func(backend.Info) error { return nil }),
	}
}

func mustPut(t *testing.T, b *Backend, name string) {
	t.Helper()
	if err := b.Put(t.Context(), name, []byte("some bytes")); err != nil {
		t.Fatal(err)
	}
}

// Old versions answer "not found" to everything if they cannot reach the remote, and all
// versions to some requests. No file may seem lost by that.
func TestNotFoundIsConfirmed(t *testing.T) {
	for _, mode := range []string{"not found", "get not found", "new get not found"} {
		for _, name := range []string{"config", hashed("keys/")} {
			b, breaks := startFake(t, mode)
			mustPut(t, b, name)
			if _, err := b.Stat(t.Context(), hashed("index/")); !errors.Is(err, backend.ErrNotExist) {
				t.Errorf("Stat of a missing file = %v", err)
			}
			breaks()
			for method, err := range all(t, b, name) {
				if method == "Stat" && mode != "not found" || method == "Put" && strings.HasPrefix(mode, "new ") {
					continue
				}
				if mode == "new get not found" && method == "List" {
					continue
				}
				if err == nil || errors.Is(err, backend.ErrNotExist) || !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) {
					t.Errorf("%s: %s of %s = %v", mode, method, name, err)
				}
			}
			_ = b.Close()
		}
	}
}

func hashed(folder string) string { return folder + strings.Repeat("0f", 32) }

// rclone says why it fails on its standard error.
func TestReasons(t *testing.T) {
	for text, want := range map[string]error{
		"The user's Drive storage quota has been exceeded., storageQuotaExceeded": backend.ErrNoSpace,
		"insufficientPermissions":    os.ErrPermission,
		"Rate Limit Exceeded\x1b[2J": backend.ErrOutOfReach,
	} {
		t.Setenv("SNAP_TEST_FAKE_TEXT", text)
		b, breaks := startFake(t, "fails")
		breaks()
		err := b.Put(t.Context(), hashed("keys/"), []byte("x"))
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "googleapi: Error 403") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: Put = %v", text, err)
		}
		if backend.Temporary(err) != (want == backend.ErrOutOfReach) { //nolint:errorlint // a table
			t.Errorf("%v: temporary is %v", err, backend.Temporary(err))
		}
	}
}

func TestStart(t *testing.T) {
	t.Setenv("SNAP_TEST_FAKE_RCLONE", "refuses")
	self := "'" + os.Args[0] + "' -test.run=^TestFakeRclone$"
	for _, tt := range []struct {
		mode string
		opts Options
		want string
	}{
		{"refuses", Options{Program: self}, "didn't find section in config file"},
		{"silent", Options{Program: self, Timeout: 200 * time.Millisecond}, "does not answer within 200ms"},
		{"", Options{Program: "no-such-program-of-snap"}, "rclone is not installed"},
		{"", Options{Program: "'"}, "rclone.program"},
		{"", Options{Args: "'"}, "rclone.args"},
	} {
		t.Setenv("SNAP_TEST_FAKE_RCLONE", tt.mode)
		_, err := Open(t.Context(), Config{Remote: "drive"}, tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open = %v, want %q", err, tt.want)
		}
	}
}

func TestStranger(t *testing.T) {
	b, breaks := startFake(t, "stranger")
	mustPut(t, b, "config")
	breaks()
	for method, err := range all(t, b, "config") {
		if !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) {
			t.Errorf("%s = %v", method, err)
		}
	}
}

// Each operation during which rclone dies fails with a temporary error, and rclone is started
// again.
func TestDies(t *testing.T) {
	b, breaks := startFake(t, "dies")
	mustPut(t, b, "config")
	breaks()
	for method, err := range all(t, b, "config") {
		if !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) || !strings.Contains(err.Error(), "rclone has ended") {
			t.Errorf("%s = %v", method, err)
		}
	}
}

// rclone dies in each request of a Put. Without repeating, the file is absent or complete
// afterwards; with it, it is complete.
func TestPutDiesAtEachStep(t *testing.T) {
	for step := 2; step <= 5; step++ { // 1 is the first answer
		for _, name := range []string{hashed("keys/"), "config"} {
			for _, repeats := range []bool{false, true} {
				t.Setenv("SNAP_TEST_FAKE_STEP", fmt.Sprint(step))
				b, _ := startFake(t, "new step")
				var be backend.Backend = b
				if repeats {
					be = retry.New(b, retry.Options{First: time.Millisecond})
				}
				err := be.Put(t.Context(), name, []byte("some bytes"))
				got, rerr := backend.ReadAll(t.Context(), retry.New(b, retry.Options{First: time.Millisecond}), name, 100)
				absent := errors.Is(rerr, backend.ErrNotExist)
				switch {
				case err != nil && (repeats || !backend.Temporary(err)):
					t.Errorf("step %d, %s: Put = %v", step, name, err)
				case err == nil && string(got) != "some bytes", err != nil && !absent && string(got) != "some bytes":
					t.Errorf("step %d, %s: Put = %v, then %q, %v", step, name, err, got, rerr)
				}
				_ = b.Close()
			}
		}
	}
}

func TestShortList(t *testing.T) {
	b, _ := startFake(t, "new short list")
	mustPut(t, b, "config")
	if err := b.List(t.Context(), "", func(backend.Info) error { return nil }); !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) {
		t.Errorf("List = %v", err)
	}
}

// A remote that accepts all bytes and keeps half of them: nothing incomplete stays.
func TestStoresHalf(t *testing.T) {
	b, _ := startFake(t, "half")
	err := b.Put(t.Context(), hashed("keys/"), bytes.Repeat([]byte("x"), 100))
	if err == nil || !strings.Contains(err.Error(), "has accepted 100 bytes and kept 50") {
		t.Errorf("Put = %v", err)
	}
	if _, err := b.Stat(t.Context(), hashed("keys/")); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
}

// The answer to a Put is lost.
func TestLostAnswer(t *testing.T) {
	b, _ := startFake(t, "lost")
	for _, name := range []string{hashed("keys/"), "config"} {
		if err := b.Put(t.Context(), name, []byte("some bytes")); err != nil {
			t.Errorf("Put of %s = %v", name, err)
		}
	}
}
