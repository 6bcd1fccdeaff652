package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whatever ends a command in an orderly way, such as a terminal that is closed, it leaves no
// lock.
func TestSignalsReleaseLocks(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	folder := filepath.Join(t.TempDir(), "Backup")
	s.run(exitOK, "generate", "--scale", "tiny", "--devices", "1", "--encrypt", "all", folder)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		user, program := openTerminal(t)
		cmd, _ := s.command("import", folder)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		readUntil(t, user, "(empty: store the backup locked): ")
		if locks := s.run(exitOK, "unlock"); !strings.Contains(locks, "import") {
			t.Errorf("%v: no lock while it waits: %s", sig, locks)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
			t.Errorf("%v: exit code %d, want %d", sig, code, exitInterrupted)
		}
		if locks := s.run(exitOK, "unlock"); !strings.Contains(locks, "no locks") {
			t.Errorf("%v: %s", sig, locks)
		}
	}
}
