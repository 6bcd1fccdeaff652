package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
)

// shell runs snap as a process of its own on one repository.
type shell struct {
	t    *testing.T
	repo string
	env  []string // more of the environment
}

func newShell(t *testing.T) *shell {
	s := &shell{t: t, repo: filepath.Join(t.TempDir(), "repo")}
	s.run(0, "init")
	return s
}

func (s *shell) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	// By the name snap the test binary is snap; see TestMain.
	out := &bytes.Buffer{}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"snap"}, args...)
	cmd.Env = append(os.Environ(), "SNAP_REPOSITORY="+s.repo, "SNAP_PASSWORD=sesame", "GOMAXPROCS=1")
	cmd.Env = append(cmd.Env, s.env...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// run wants an exit code and returns what was printed.
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

// importUntilPack starts an import and returns when its first pack is stored.
func (s *shell) importUntilPack(folder string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	cmd, out := s.command("import", folder)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 6000 {
		if packs, _ := filepath.Glob(filepath.Join(s.repo, "packs", "*", "*")); len(packs) > 0 {
			return cmd, out
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	s.t.Fatalf("no pack appeared: %s", out)
	return nil, nil
}

// stored returns what each snapshot added to the repository.
func (s *shell) stored() []int64 {
	s.t.Helper()
	var list []struct {
		StoredBytes int64 `json:"stored_bytes"`
	}
	if err := json.Unmarshal([]byte(s.run(0, "snapshots", "--json")), &list); err != nil {
		s.t.Fatal(err)
	}
	out := []int64{}
	for _, l := range list {
		out = append(out, l.StoredBytes)
	}
	return out
}

func smallDevice(t *testing.T, s *shell) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "Backup")
	s.run(0, "generate", "--scale", "small", "--devices", "1", folder)
	return folder
}

// Ctrl-C makes no snapshot, keeps what was stored, and ends with 130; the next
// import goes on from there.
func TestInterruptedImport(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no way to send Ctrl-C to one process")
	}
	if testing.Short() {
		t.Skip("it stores 60 MB")
	}
	s := newShell(t)
	folder := smallDevice(t, s)

	cmd, out := s.importUntilPack(folder)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Fatalf("exit code %d, want %d\n%s", code, exitInterrupted, out)
	}
	if !strings.Contains(out.String(), "run the same command again to go on") {
		t.Errorf("it says %q", out)
	}
	if n := s.stored(); len(n) != 0 {
		t.Errorf("%d snapshots after an interrupt", len(n))
	}
	kept := packBytes(t, s.repo)
	s.run(0, "check", "--read-data")
	s.run(0, "import", folder)
	added, whole := s.stored()[0], packBytes(t, s.repo)
	if added > whole-kept*9/10 {
		t.Errorf("the next import added %d bytes of %d, though %d were there", added, whole, kept)
	}
	t.Logf("%d bytes were kept, the next import added %d", kept, added)
	s.run(0, "check", "--read-data")
}

// A process that is killed leaves nothing that stands in the way.
func TestKilledImport(t *testing.T) {
	if testing.Short() {
		t.Skip("it stores 60 MB")
	}
	s := newShell(t)
	folder := smallDevice(t, s)
	cmd, _ := s.importUntilPack(folder)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n := s.stored(); len(n) != 0 {
		t.Errorf("%d snapshots after a kill", len(n))
	}
	s.run(0, "check", "--read-data")
	s.run(0, "import", folder)
	s.run(0, "check", "--read-data")
	target := filepath.Join(t.TempDir(), "out")
	s.run(0, "materialize", "latest", target)
	want, err := fingerprint(onlyChild(t, folder))
	if err != nil {
		t.Fatal(err)
	}
	got, err := fingerprint(onlyChild(t, target))
	if err != nil {
		t.Fatal(err)
	}
	if err := want.compare(got); err != nil {
		t.Error(err)
	}
}

func packBytes(t *testing.T, repo string) (sum int64) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(repo, "packs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

func onlyChild(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v in %s: %v", entries, dir, err)
	}
	return filepath.Join(dir, entries[0].Name())
}

// Ctrl-C while a device sends: no snapshot, it is said once and in plain words,
// what came is kept, and the next backup goes on from there.
func TestInterruptedBackup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no way to send Ctrl-C to one process")
	}
	l := startLab(t, lab.Options{PlainText: true})
	d := l.Devices()[0]
	s := newShell(t)
	interrupt := func(fault string, step faults.Step, args ...string) string {
		t.Helper()
		if _, err := l.Do(t.Context(), "fault 1 "+fault); err != nil {
			t.Fatal(err)
		}
		runs := len(d.Agent.Runs())
		cmd, out := s.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 4000 {
			if all := d.Agent.Runs(); len(all) > runs && slices.Contains(all[runs].Steps, step) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
			t.Errorf("%v: exit code %d, want %d", args, code, exitInterrupted)
		}
		if strings.Count(out.String(), "interrupted") != 1 || strings.Contains(out.String(), "context") || strings.Count(out.String(), "command again") > 1 {
			t.Errorf("%v says %s", args, out)
		}
		return out.String()
	}
	if said := interrupt("manifests=wait 3s", faults.StepManifests, "backup"); !strings.Contains(said, "what was received is kept (1") {
		t.Errorf("it says %s", said)
	}
	if n := s.stored(); len(n) != 0 {
		t.Errorf("%d snapshots after an interrupt", len(n))
	}
	s.run(0, "backup")
	if r := d.Agent.LastRun(); r.Resumed == "" || r.Resent > 0 || r.Spared == 0 {
		t.Errorf("the next backup: %+v", r)
	}
	s.run(0, "check", "--read-data")

	// While the device asks for its passcode; it does not ask any more then.
	d.AskPasscode(true)
	if said := interrupt("upload=wait 0s", faults.StepBegin, "backup"); !strings.Contains(said, "nothing was received") {
		t.Errorf("it says %s", said)
	}
	d.AskPasscode(false)
	s.run(0, "backup")
	s.env = []string{"SNAP_NEW_BACKUP_PASSWORD=pears"}
	if said := interrupt("begin=wait 3s", faults.StepBegin, "device", "encryption", "on"); !strings.Contains(said, "snap device info") {
		t.Errorf("it says %s", said)
	}
	blameless(t, l)
}
