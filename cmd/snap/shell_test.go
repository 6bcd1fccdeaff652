package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// shell runs snap commands on a repository, each as a process of its own.
type shell struct {
	t     *testing.T
	repo  string
	cache string   // the user's cache folder
	env   []string // added to the environment
}

// newShell returns a shell on a repository that does not exist yet.
func newShell(t *testing.T, repo string, env ...string) *shell {
	t.Helper()
	return &shell{t: t, repo: repo, cache: t.TempDir(), env: env}
}

// newRepo returns a shell on a new, empty repository.
func newRepo(t *testing.T, env ...string) *shell {
	t.Helper()
	s := newShell(t, filepath.Join(t.TempDir(), "repo"), env...)
	s.run(0, "init")
	return s
}

// lab starts simulated devices with content. The shell's commands find these devices.
func (s *shell) lab(o lab.Options) *lab.Lab {
	s.t.Helper()
	l := devicetest.NewLab(s.t, o)
	s.env = append(s.env, device.AddressVariable+"="+l.Address)
	return l.Lab
}

// command returns a command and the buffer that receives what it prints.
func (s *shell) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	// Under the name snap the test binary is snap; see TestMain.
	out := &bytes.Buffer{}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"snap"}, args...)
	cmd.Env = append(os.Environ(), "SNAP_REPOSITORY="+s.repo, "SNAP_PASSWORD=sesame", "XDG_CACHE_HOME="+s.cache, "GOMAXPROCS=1")
	cmd.Env = append(cmd.Env, s.env...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// run runs a command, checks its exit code and returns what it printed.
func (s *shell) run(code int, args ...string) string {
	s.t.Helper()
	cmd, out := s.command(args...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("snap %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return out.String()
}

// try runs a command and returns an error if it fails or warns. Any goroutine may
// call try, but only the goroutine of the test may call run.
func (s *shell) try(args ...string) error {
	cmd, out := s.command(args...)
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 0 || bytes.Contains(out.Bytes(), []byte("warning")) {
		return fmt.Errorf("snap %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return nil
}

// json runs a command with --json and decodes its result.
func (s *shell) json(v any, args ...string) {
	s.t.Helper()
	out := s.run(0, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		s.t.Fatalf("snap %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// stored returns how many bytes each snapshot added to the repository.
func (s *shell) stored() []int64 {
	s.t.Helper()
	var list []struct {
		StoredBytes int64 `json:"stored_bytes"`
	}
	s.json(&list, "snapshots")
	out := []int64{}
	for _, l := range list {
		out = append(out, l.StoredBytes)
	}
	return out
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the condition does not become true")
		}
	}
}

// onlyChild returns the path of the only file in a folder.
func onlyChild(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v in %s: %v", entries, dir, err)
	}
	return filepath.Join(dir, entries[0].Name())
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// numberFrom reads a number from an environment variable. If the variable is not set,
// it returns fallback.
func numberFrom(t *testing.T, variable string, fallback uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return fallback
	}
	var n uint64
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// amount returns how much a test does: all of it with SNAP_TEST_ALL, little with
// -short.
func amount(all, usual, short uint64) uint64 {
	switch {
	case faultpoint.All():
		return all
	case testing.Short():
		return short
	}
	return usual
}

// encryptions returns the cases to test: devices that encrypt their backups, or
// devices that do not, at random. With SNAP_TEST_ALL, SNAP_TEST_BREAKS or
// SNAP_TEST_HUGE it returns both.
func encryptions(t *testing.T) []synthetic.Encryption {
	t.Helper()
	both := []synthetic.Encryption{synthetic.EncryptNone, synthetic.EncryptAll}
	if faultpoint.All() || os.Getenv("SNAP_TEST_BREAKS") != "" || os.Getenv("SNAP_TEST_HUGE") != "" {
		return both
	}
	i := faultpoint.Rand(t).IntN(len(both))
	return both[i : i+1]
}
