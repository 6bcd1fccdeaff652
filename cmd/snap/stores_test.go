package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/proxytest"
	"github.com/snap-backup/snap/repo/backend/restserver"
	"github.com/snap-backup/snap/repo/backend/resttest"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// storeRig runs commands on a repository at an address.
type storeRig struct {
	t       *testing.T
	dir     string
	address string
	options []string
	printed []string // by all commands
	packs   int      // size of packs; 0 for the usual one
}

func (s *storeRig) run(code int, args ...string) string {
	s.t.Helper()
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, options: cheap}
	a.options.PackSize, a.line.repeatAfter = s.packs, 50*time.Millisecond
	args = append(append([]string{"-r", s.address}, s.options...), args...)
	if got := a.run(context.Background(), args); got != code {
		s.t.Fatalf("snap %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out.String())
	}
	s.printed = append(s.printed, out.String())
	return out.String()
}

func (s *storeRig) path(name string) string { return filepath.Join(s.dir, name) }

// has fails unless an output has a text.
func (s *storeRig) has(output, text string) {
	s.t.Helper()
	if !strings.Contains(output, text) {
		s.t.Errorf("%q is not in: %s", text, output)
	}
}

// A repository in an object store.
func TestInteropObjectStore(t *testing.T) {
	g := s3test.Start(t)
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.ID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.Secret)
	s := newStoreRig(t, "s3:http://"+g.Addr+"/bucket/phones")
	s.has(s.run(exitError, "init"), "s3.make-bucket=true")
	s.run(0, "init", "-o", "s3.make-bucket=true")
	s.has(s.run(exitUsage, "snapshots", "-o", "s3.regoin=x"), "unknown key")
	s.everything()
	s.has(s.run(exitUsage, "snapshots", "-o", "s3.connections=0"), "want a number from 1 to 100")
	s.limited(1 << 20)
	s.demo()
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	s.has(s.run(exitError, "snapshots"), "access key")
}

// TestInteropCutLine imports, checks and restores over a line that ends half of the connections
// in the middle of a pack.
func TestInteropCutLine(t *testing.T) {
	g := s3test.Start(t)
	p := proxytest.Start(t, g.Addr)
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.ID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.Secret)
	s := newStoreRig(t, "s3:http://"+p.Addr+"/bucket/phones", "-v")
	s.packs = 300 << 10
	s.run(0, "init", "-o", "s3.make-bucket=true")
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--encrypt", "none", "--days", "3", s.path("day3"))
	cut := map[string]int{"bytes": 100 << 10}
	p.Add(proxytest.Toxic{Type: "limit_data", Stream: "upstream", Attributes: cut, Share: 0.5}, proxytest.Toxic{Type: "limit_data", Attributes: cut, Share: 0.5})
	out := s.run(0, "import", s.path("day3")) + s.run(0, "check", "--read-data")
	s.restores("out3")
	s.has(out, "trying again")
	p.Heal()
	if out = s.run(0, "check", "--read-data"); strings.Contains(out, "trying again") {
		t.Errorf("on a good line: %s", out)
	}
	s.has(s.run(0, "import", s.path("day3")), "unchanged")
}

// A repository on a server that ssh reaches.
func TestInteropSFTPStore(t *testing.T) {
	const server = "/usr/lib/openssh/sftp-server"
	if _, err := os.Stat(server); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	s := newStoreRig(t, "sftp:nobody@example.invalid:"+filepath.ToSlash(filepath.Join(dir, "phones")), "-o", "sftp.command="+server)
	s.run(0, "init")
	s.run(exitUsage, "init", "-r", "sftp:-x:/a")
	s.everything()
	s.demo()
}

// A repository on a server of the REST protocol.
func TestRESTStore(t *testing.T) {
	server := resttest.New()
	server.User, server.Password = "anna", "hunter2/@"
	h := httptest.NewServer(server)
	t.Cleanup(h.Close)
	s := newStoreRig(t, "rest:"+strings.Replace(h.URL, "://", "://anna:hunter2%2F%40@", 1)+"/phones")
	s.has(s.run(exitNoRepo, "snapshots"), `create a repository with "snap init"`)
	s.run(0, "init")
	s.everything()
	requests := func(what string, most int, args ...string) {
		t.Helper()
		server.Requests()
		s.run(0, args...)
		if list := server.Requests(); len(list) > most {
			t.Errorf("%s: %d requests, at most %d wanted:\n%s", what, len(list), most, strings.Join(list, "\n"))
		} else {
			t.Logf("%s: %d requests: %q", what, len(list), list)
		}
	}
	s.run(0, "import", s.path("day3"))
	requests("an unchanged day", 8, "import", s.path("day3"))
	requests("snapshots", 4, "snapshots")
	server.Password = "other"
	out := s.run(exitError, "snapshots")
	s.has(out, "SNAP_REST_PASSWORD")
	s.showsNothing("hunter2")
	t.Setenv("SNAP_REST_USER", "anna")
	t.Setenv("SNAP_REST_PASSWORD", "other")
	s.address = "rest:" + h.URL + "/phones"
	s.has(s.run(0, "snapshots"), "of 1 device")
	s.run(exitUsage, "snapshots", "-r", "rest:https://u:hunter2/2@nas/a")
	s.run(exitUsage, "mirror", "-r", "rest:https://u:hunter2/2@nas/a", "rest:https://u:hunter2/2@nas/a")
	t.Setenv("SNAP_TO_REPOSITORY", "rest:https://u:hunter2/2@nas/a")
	s.run(exitUsage, "copy")
	s.run(exitUsage, "snapshots", "-o", "rest.connections=0")
	s.run(exitUsage, "snapshots", "-o", "rest.insecure-http=maybe")
	s.has(s.run(exitError, "snapshots", "-o", "rest.fingerprint=ab"), "64 hex digits")
	s.showsNothing("hunter2")
}

// The demo on a server of snap serve.
func TestRESTStoreDemo(t *testing.T) {
	h := httptest.NewServer(restserver.New(memory.New(), restserver.Options{Anybody: true, Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(h.Close)
	newStoreRig(t, "rest:"+h.URL+"/phones").demo()
}

// A server that lets nobody remove files takes backups for a long time, and other commands say
// what to do.
func TestRESTStoreAppendOnly(t *testing.T) {
	server := resttest.New()
	h := httptest.NewServer(server)
	t.Cleanup(h.Close)
	s := newStoreRig(t, "rest:"+h.URL+"/phones")
	s.run(0, "init")
	server.AppendOnly = true
	for day := 1; day <= 18; day++ {
		folder := s.path("day")
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--encrypt", "none", "--days", strconv.Itoa(day), folder)
		s.run(0, "import", "-q", folder)
	}
	s.run(0, "check", "--read-data")
	server.Requests()
	for _, args := range [][]string{
		{"prune"}, {"forget", "--keep-last", "1"}, {"forget", "--keep-last", "1", "--prune"},
		{"tag", "latest", "--add", "kept"}, {"pin", "latest"}, {"unpin", "latest"}, {"note", "latest", "text"},
		{"key", "remove", "00"}, {"key", "passwd"}, {"parity"}, {"parity", "5%"}, {"parity", "off"},
		{"repair"}, {"repair", "index"}, {"repair", "packs"}, {"repair", "snapshots"}, {"repair", "config"},
	} {
		s.has(s.run(exitRefused, args...), "run this command on the server itself")
	}
	for _, r := range server.Requests() {
		if strings.HasPrefix(r, "POST") || strings.HasPrefix(r, "DELETE") {
			t.Errorf("a command that is refused sends %s", r)
		}
	}
	for _, args := range [][]string{{"prune", "--dry-run"}, {"tag", "latest", "--add", "kept", "--dry-run"}, {"parity", "--status"}, {"repair", "index", "--dry-run"}} {
		s.run(0, args...)
	}
	s.run(0, "check", "--read-data")
	s.run(0, "mirror", s.path("drive"))
	s.has(s.run(exitRefused, "mirror", "-r", s.path("drive"), s.address), "snap copy")
	server.AppendOnly = false
	s.run(0, "parity", "5%")
	server.AppendOnly = true
	server.Requests()
	folder := s.path("day")
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--encrypt", "none", "--days", "19", folder+"19")
	s.has(s.run(0, "import", folder+"19"), "parity was not updated")
	for _, r := range server.Requests() {
		if strings.HasPrefix(r, "POST parity/") {
			t.Errorf("an import sends %s, which nobody removes", r)
		}
	}
}

// A repository in a remote of rclone, which is a folder here.
func TestInteropRcloneStore(t *testing.T) {
	if _, err := exec.LookPath("rclone"); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Setenv("RCLONE_CONFIG", filepath.Join(t.TempDir(), "rclone.conf"))
	dir := t.TempDir()
	s := newStoreRig(t, "rclone::local:"+filepath.ToSlash(filepath.Join(dir, "phones")))
	s.has(s.run(exitNoRepo, "snapshots"), "no repository here")
	s.run(0, "init")
	s.everything()
	s.demo()
	s.has(s.run(exitError, "snapshots", "-r", "rclone:nothing:phones"), "didn't find section in config file")
	s.has(s.run(exitError, "snapshots", "-o", "rclone.program=no-such-program"), "rclone.program")
	s.run(exitUsage, "snapshots", "-o", "rclone.timeout=x")
	s.run(exitUsage, "snapshots", "-r", "rclone:a,pass=x:b")
	// Another remote as a mirror, a source of repairs, and a copy.
	mirrored := "rclone::local:" + filepath.ToSlash(filepath.Join(dir, "mirror"))
	s.run(0, "mirror", mirrored)
	s.run(0, "mirror", "--check", mirrored)
	s.run(0, "repair", "--from", mirrored)
	s.run(exitUsage, "mirror", s.address+"/inside")
	copied := "rclone::local:" + filepath.ToSlash(filepath.Join(dir, "copy"))
	s.run(0, "init", "-r", copied)
	s.run(0, "copy", "--to", copied)
	// The files of the remote are a repository in a folder.
	s.address = filepath.Join(dir, "phones")
	s.run(0, "check", "--read-data")
	s.restores("out3")
	if _, err := os.Stat(filepath.Join(dir, "phones", "config")); err != nil {
		t.Error(err)
	}
}

// showsNothing fails if anything that was printed has a text.
func (s *storeRig) showsNothing(text string) {
	s.t.Helper()
	for _, out := range s.printed {
		if strings.Contains(out, text) {
			s.t.Errorf("%q is in: %s", text, out)
		}
	}
}

// demo runs the demo beside the repository, and reads what it has left.
func (s *storeRig) demo() {
	s.t.Helper()
	tried := *s
	tried.address += "-demo"
	s.has(tried.run(0, "demo", "--scale", "tiny", "--days", "1"), "Every byte of the repository was read and verified")
	s.t.Setenv("SNAP_PASSWORD", demoPassword)
	s.has(tried.run(0, "snapshots"), "2 snapshots of 2 devices")
	tried.run(exitExists, "demo", "--scale", "tiny")
	s.t.Setenv("SNAP_PASSWORD", "pw")
}

func newStoreRig(t *testing.T, address string, options ...string) *storeRig {
	t.Setenv("SNAP_PASSWORD", "pw")
	t.Setenv("SNAP_TO_PASSWORD", "pw")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return &storeRig{t: t, dir: t.TempDir(), address: address, options: options}
}

// everything makes backups and a mirror, loses a file, repairs it, and restores, with the
// cache and without it.
func (s *storeRig) everything() {
	s.t.Helper()
	s.has(s.run(16, "init"), "already")
	for day := 1; day <= 3; day++ {
		folder := s.path("day" + string(rune('0'+day)))
		s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--encrypt", "none", "--days", string(rune('0'+day)), folder)
		s.run(0, "import", "-q", folder)
	}
	s.has(s.run(0, "import", s.path("day3")), "unchanged")
	list := s.run(0, "snapshots")
	s.has(list, "3 snapshots")
	if other := s.run(0, "snapshots", "--no-cache"); other != list {
		s.t.Errorf("without the cache: %s", other)
	}
	caches, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "snap", "repositories", "*", "index", "*"))
	if err != nil || len(caches) == 0 {
		s.t.Error("nothing is in the cache", err)
	}
	s.restores("out1")
	s.run(0, "mirror", s.path("drive"))
	s.run(0, "verify", "latest")
	s.run(0, "tag", "latest", "--add", "kept")
	s.run(0, "check", "--read-data")
	s.run(0, "forget", "--keep-last", "1", "--prune") // keeps the one that was stored last, too
	s.run(0, "check", "--read-data")
	s.has(s.run(0, "snapshots"), "of 1 device")
	s.restores("out2")
	s.run(0, "repair", "--from", s.path("drive"))
	s.run(0, "status", "--max-age", "9999d")
	s.run(exitWrongPass, "snapshots", "--password-command", "echo wrong")
}

// limited gets the packs with a limit, on one connection, and with a limit of the
// configuration file.
func (s *storeRig) limited(atLeast int64) {
	s.t.Helper()
	profile := s.path("limits.toml")
	if err := os.WriteFile(profile, []byte("[profile.x]\nrepository = '"+s.address+"'\nlimit-download = 2048\nconnections = 2\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	seconds := func(args ...string) float64 {
		start := time.Now()
		s.run(0, append([]string{"check", "--read-data"}, args...)...)
		return time.Since(start).Seconds()
	}
	least := float64(atLeast)/(2<<20) - 0.1
	s.t.Logf("without a limit: %.2f s", seconds())
	for _, args := range [][]string{{"--limit-download", "2MiB", "--connections", "1"}, {"--config", profile}} {
		took := seconds(args...)
		s.t.Logf("with %q: %.2f s", args, took)
		if took < least {
			s.t.Errorf("with %q it took %.2f s, want at least %.2f s", args, took, least)
		}
	}
}

// restores fails unless the latest snapshot comes back byte for byte.
func (s *storeRig) restores(name string) {
	s.t.Helper()
	s.run(0, "materialize", "-q", "latest", s.path(name))
	read := func(name string) foldertest.Contents {
		found, err := filepath.Glob(filepath.Join(s.path(name), "0*"))
		if err != nil || len(found) != 1 {
			s.t.Fatal(found, err)
		}
		return foldertest.MustRead(s.t, found[0])
	}
	if err := read("day3").Diff(read(name)); err != nil {
		s.t.Error(err)
	}
}
