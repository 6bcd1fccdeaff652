package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/synthetic"
)

// At a terminal the backup password is asked for: three times at most, without
// showing it, and nothing typed means that the backup is stored locked.
func TestBackupPasswordPrompt(t *testing.T) {
	dir := t.TempDir()
	conf := synthetic.Config{Seed: 51, Encryption: synthetic.EncryptAll, Password: "pears", StateDir: t.TempDir()}
	devices, err := synthetic.Generate(context.Background(), dir, conf, 1)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, devices[0].UDID)
	s := newShell(t)
	for _, test := range []struct {
		name  string
		typed []string
		code  int
		says  string
	}{
		{"right", []string{"pears"}, exitOK, "iOS"},
		{"second try", []string{"apples", "pears"}, exitOK, "that is not the backup password"},
		{"empty", []string{""}, exitOK, "stored locked"},
		{"three wrong", []string{"apples", "plums", "figs"}, exitWrongBackup, "wrong backup password for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			user, program := openTerminal(t)
			cmd, _ := s.command("import", folder)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			shown := ""
			for _, word := range test.typed {
				shown += readUntil(t, user, "(empty: store it locked): ")
				for range 1000 {
					if !echoes(t, program) {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
				if _, err := io.WriteString(user, word+"\n"); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d: %s", code, test.code, shown)
			}
			if _, err := io.WriteString(program, "(end)"); err != nil {
				t.Fatal(err)
			}
			shown += readUntil(t, user, "(end)")
			if !strings.Contains(shown, test.says) {
				t.Errorf("%q is not said: %q", test.says, shown)
			}
			for _, word := range test.typed {
				if word != "" && strings.Contains(shown, word) {
					t.Errorf("%q is shown: %q", word, shown)
				}
			}
			if !echoes(t, program) {
				t.Error("the terminal is left without echo")
			}
		})
	}
	snapshots := s.run(exitOK, "snapshots")
	if strings.Count(snapshots, " EL\n") != 1 || strings.Count(snapshots, " E\n") != 2 {
		t.Errorf("snapshots:\n%s", snapshots)
	}
}
