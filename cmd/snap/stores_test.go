package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// storeRig runs commands on a repository at an address.
type storeRig struct {
	t       *testing.T
	dir     string
	address string
	options []string
}

func (s *storeRig) run(code int, args ...string) string {
	s.t.Helper()
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, options: cheap}
	args = append(append([]string{"-r", s.address}, s.options...), args...)
	if got := a.run(context.Background(), args); got != code {
		s.t.Fatalf("snap %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out.String())
	}
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
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	s.has(s.run(exitError, "snapshots"), "access key")
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
