package main

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/simulator/lab"
)

// failing runs a command whose system calls fail as strace's --inject says, such as
// "fsync:error=ENOSYS". It checks the exit code and returns what the command printed. It
// skips the test if strace is missing or may not trace, and with -short, since strace
// needs much CPU time.
func (s *shell) failing(inject string, code int, args ...string) string {
	s.t.Helper()
	if testing.Short() {
		s.t.Skip("traces every system call")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			s.t.Fatal(err)
		}
		s.t.Skip(err)
	}
	if out, err := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace=fsync", "true").CombinedOutput(); err != nil {
		s.t.Skipf("this machine does not allow tracing: %v: %s", err, out)
	}
	cmd, out := s.command(args...)
	call, _, _ := strings.Cut(inject, ":")
	// The program is called by its own name, since strace cannot give it another one.
	name := filepath.Join(s.t.TempDir(), "snap")
	if err := os.Symlink(cmd.Path, name); err != nil {
		s.t.Fatal(err)
	}
	cmd.Args = []string{strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call, "-e", "inject=" + inject}
	if !strings.Contains(inject, ":signal=") {
		cmd.Args = append(cmd.Args, "--seccomp-bpf") // faster, but it sends no signals
	}
	cmd.Args = append(append(cmd.Args, name), args...)
	cmd.Path = strace
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("%s, snap %s: exit code %d, want %d\n%s", inject, strings.Join(args, " "), got, code, out)
	}
	return out.String()
}

// A repository can be made and used on a share that does not support fsync. One that
// was moved there needs a flag.
func TestWithoutFsyncInterop(t *testing.T) {
	t.Parallel()
	const refuse = "fsync:error=EOPNOTSUPP"
	s := newShell(t, filepath.Join(t.TempDir(), "repo"))
	backups := t.TempDir()
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--days", "1", backups)

	out := s.failing(refuse, 0, "init")
	if !strings.Contains(out, "does not support fsync") {
		t.Errorf("init does not warn: %s", out)
	}
	if out := s.failing(refuse, 0, "import", backups); strings.Contains(out, "warning") {
		t.Errorf("import: %s", out)
	}
	var config struct {
		NoFsync bool `json:"no_fsync"`
	}
	if s.json(&config, "cat", "config"); !config.NoFsync {
		t.Error("config does not note that fsync is not supported")
	}
	s.run(0, "check", "--read-data")

	moved := newRepo(t)
	if out := moved.failing(refuse, exitError, "import", backups); !strings.Contains(out, "--no-fsync") {
		t.Errorf("import does not say what helps: %s", out)
	}
	moved.failing(refuse, 0, "--no-fsync", "import", backups)
	moved.run(0, "check", "--read-data")
	moved.failing("fsync:error=EIO", exitError, "--no-fsync", "prune")
}

// Some file systems do not tell their size: statfs reports zeros, or is not supported.
// That does not mean that they are full.
func TestFreeSpaceUnknownInterop(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	backups := t.TempDir()
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--days", "1", backups)
	s.run(0, "import", backups)
	for i, inject := range []string{"statfs:retval=0", "statfs:error=ENOSYS"} {
		s.failing(inject, 0, "mirror", filepath.Join(t.TempDir(), "mirror"))
		s.failing(inject, 0, "materialize", "latest", t.TempDir())
		if i == 0 {
			l := s.lab(lab.Options{Seed: 3})
			s.failing(inject, 0, "backup")
			noViolations(t, l)
		}
	}
}

// Every file comes back onto drives and shares that refuse to set modes or times, or to
// flush, and past interrupted calls. One warning says how many differ.
func TestMaterializeOntoOddFileSystemsInterop(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	backups := t.TempDir()
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--days", "1", backups)
	openUp(t, backups)
	s.run(0, "import", backups)
	want := contentOf(t, onlyChild(t, backups))
	for inject, warning := range map[string]string{
		"fchmod:error=EPERM":           "cannot hold the modes",
		"fchmod:error=ENOSYS":          "cannot hold the modes",
		"fchmod:error=EINTR:when=1":    "",
		"utimensat:error=EPERM":        "cannot hold the times",
		"utimensat:error=ENOSYS":       "cannot hold the times",
		"utimensat:error=EINTR:when=1": "",
		"syncfs:error=EINTR:when=1":    "",
		"syncfs:error=ENOSYS":          "",
	} {
		target := t.TempDir()
		out := s.failing(inject, 0, "materialize", "latest", target)
		if n := strings.Count(out, "warning"); warning == "" && n != 0 || warning != "" && (n != 1 || !strings.Contains(out, warning)) {
			t.Errorf("%s: it prints %s", inject, out)
		}
		if got := contentOf(t, onlyChild(t, target)); !maps.Equal(got, want) {
			t.Errorf("%s: the folder has other content", inject)
		}
	}
}

// openUp gives everybody all permissions of everything below dir. Files with such modes
// need a call of chmod, because of the umask.
func openUp(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.Chmod(path, 0o777)
		}
		return os.Chmod(path, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// contentOf returns the hashes of all files below dir by their paths.
func contentOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			found[rel], err = hashFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What a killed run leaves in a folder is named with its size and removed by the next run
// that writes there, also for another snapshot.
func TestAbandonedFoldersInterop(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	backups := t.TempDir()
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "2", "--days", "1", backups)
	s.run(0, "import", backups)
	var list []listedSnapshot
	s.json(&list, "snapshots")
	target := t.TempDir()
	const kill = "syncfs:signal=KILL"
	check := func(args ...string) {
		t.Helper()
		out := s.run(0, append(args, target)...)
		if !strings.Contains(out, "removed what an interrupted run has left: "+target) || !strings.Contains(out, " MiB)") {
			t.Errorf("%v says %s", args, out)
		}
		entries, err := os.ReadDir(target)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "snap-") {
				t.Errorf("after %v %s is left", args, e.Name())
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	s.failing(kill, -1, "materialize", list[0].ID, target)
	check("materialize", list[1].ID)
	s.failing(kill, -1, "drill", list[0].ID, "--to", target)
	check("drill", list[1].ID, "--to")

	// The same command continues, and removes nothing.
	s.failing(kill, -1, "materialize", list[0].ID, target)
	if out := s.run(0, "materialize", list[0].ID, target); strings.Contains(out, "removed") || !strings.Contains(out, "already there") {
		t.Errorf("it says %s", out)
	}
}
