package main

import (
	"errors"
	"io/fs"
	"os"
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

// interruptedImport is an import that was stopped after its first pack.
type interruptedImport struct {
	*shell
	folder string
	kept   int64  // size of the packs that it stored
	out    string // what the import printed
}

// interruptImport starts an import and sends a signal to it once its first pack is
// stored. If the import ends before the signal, it tries again.
func interruptImport(t *testing.T, sig os.Signal) *interruptedImport {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "Backup")
	newShell(t, "").run(0, "generate", "--scale", "demo", "--devices", "1", folder)
	for range 10 {
		s := newRepo(t, packSizeVariable+"=1000000")
		cmd, out := s.command("import", folder)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return packBytes(t, s.repo) > 0 })
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if cmd.ProcessState.Success() {
			continue // the import ended before the signal
		}
		if code := cmd.ProcessState.ExitCode(); sig == os.Interrupt && code != exitInterrupted {
			t.Fatalf("exit code %d, want %d\n%s", code, exitInterrupted, out)
		}
		if n := s.stored(); len(n) != 0 {
			t.Errorf("%d snapshots after %v", len(n), sig)
		}
		i := &interruptedImport{shell: s, folder: folder, kept: packBytes(t, s.repo), out: out.String()}
		s.run(0, "check", "--read-data")
		return i
	}
	t.Fatal("every import ended before it could be interrupted")
	return nil
}

// After Ctrl-C there is no snapshot and the exit code is 130. Stored packs stay, and
// the next import continues from there.
func TestInterruptedImport(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot send Ctrl-C to one process")
	}
	if testing.Short() {
		t.Skip("it stores 30 MB")
	}
	t.Parallel()
	i := interruptImport(t, os.Interrupt)
	if !strings.Contains(i.out, "run the same command again to continue") {
		t.Errorf("it says %q", i.out)
	}
	i.run(0, "import", i.folder)
	added, all := i.stored()[0], packBytes(t, i.repo)
	if added > all-i.kept*9/10 {
		t.Errorf("the next import added %d bytes of %d, though %d were stored", added, all, i.kept)
	}
	t.Logf("%d bytes were stored, the next import added %d", i.kept, added)
	i.run(0, "check", "--read-data")
}

// A killed process leaves nothing that blocks the next one.
func TestKilledImport(t *testing.T) {
	if testing.Short() {
		t.Skip("it stores 30 MB")
	}
	t.Parallel()
	i := interruptImport(t, os.Kill)
	i.run(0, "import", i.folder)
	i.run(0, "check", "--read-data")
	target := filepath.Join(t.TempDir(), "out")
	i.run(0, "materialize", "latest", target)
	sameFolder(t, onlyChild(t, i.folder), onlyChild(t, target))
}

// A drill that ends early leaves nothing behind, and the next one passes. A killed one may
// leave a part of its page, which the next one removes.
func TestInterruptedDrill(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot send Ctrl-C to one process")
	}
	t.Parallel()
	folder, tmp, pages := filepath.Join(t.TempDir(), "Backup"), t.TempDir(), t.TempDir()
	s := newRepo(t, "TMPDIR="+tmp, "SNAP_BACKUP_PASSWORD=synthetic")
	s.run(0, "generate", "--scale", "tiny", "--devices", "1", "--encrypt", "all", folder)
	s.run(0, "import", folder)
	drill := []string{"drill", "--certificate", filepath.Join(pages, "page.html")}
	begun := time.Now()
	s.run(0, drill...)
	step := time.Since(begun) / 6
	certificate := drill[2]
	signals := []os.Signal{os.Interrupt, os.Kill, os.Interrupt, os.Interrupt, os.Kill}
	for i := 0; i < len(signals); i++ {
		sig := signals[i]
		if err := os.Remove(certificate); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		cmd, out := s.command(drill...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(step * time.Duration(i+1))
		_ = cmd.Process.Signal(sig) // it may have ended
		_ = cmd.Wait()
		switch code := cmd.ProcessState.ExitCode(); {
		case sig == os.Kill, code == exitInterrupted, code == exitOK:
		case code == -1 && step < time.Minute && out.Len() == 0:
			// On a busy machine the signal may come before snap can catch it.
			step *= 2
			i--
		default:
			t.Errorf("exit code %d\n%s", code, out)
		}
		for _, name := range append(filesIn(t, tmp), filesIn(t, pages)...) {
			if name != certificate && (sig != os.Kill || name != partialPage(certificate)) {
				t.Errorf("%v has left %s", sig, name)
			}
		}
	}
	if err := os.WriteFile(partialPage(certificate), []byte("left by a killed drill"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(0, drill...)
	if left := filesIn(t, pages); !slices.Equal(left, []string{certificate}) {
		t.Errorf("a drill leaves %v", left)
	}
	s.run(0, "check", "--read-data")
}

// filesIn returns the paths of what is in a folder.
func filesIn(t *testing.T, dir string) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return paths
}

// packBytes returns the size of a repository's packs.
func packBytes(t *testing.T, repo string) (sum int64) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(repo, "packs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		info, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed in the meantime
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

// If Ctrl-C interrupts a backup while the device sends, no snapshot is made. The
// message says so once, in plain words. Received files are kept, and the next backup
// continues from there.
func TestInterruptedBackup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot send Ctrl-C to one process")
	}
	t.Parallel()
	s := newRepo(t)
	l := s.lab(lab.Options{PlainText: true})
	d := l.Devices()[0]
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
		waitFor(t, func() bool {
			all := d.Agent.Runs()
			return len(all) > runs && slices.Contains(all[runs].Steps, step)
		})
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

	// Ctrl-C also works while the device asks for its passcode.
	d.AskPasscode(true)
	if said := interrupt("upload=wait 0s", faults.StepBegin, "backup"); !strings.Contains(said, "nothing that could be kept was received") {
		t.Errorf("it says %s", said)
	}
	d.AskPasscode(false)
	s.run(0, "backup")
	s.env = append(s.env, "SNAP_NEW_BACKUP_PASSWORD=pears")
	if said := interrupt("begin=wait 3s", faults.StepBegin, "device", "encryption", "on"); !strings.Contains(said, "snap device info") {
		t.Errorf("it says %s", said)
	}
	noViolations(t, l)
}
