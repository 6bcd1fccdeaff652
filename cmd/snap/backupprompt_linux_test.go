package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// At a terminal, import asks for the backup password up to three times without
// showing it. After an empty answer it stores the backup locked.
func TestBackupPasswordPrompt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := synthetic.Config{Seed: 51, Encryption: synthetic.EncryptAll, Password: "pears", StateDir: t.TempDir()}
	devices, err := synthetic.Generate(context.Background(), dir, conf, 1)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, devices[0].UDID)
	s := newRepo(t)
	for _, test := range []struct {
		name  string
		typed []string
		code  int
		says  string
	}{
		{"empty", []string{""}, exitOK, "stored locked"},
		{"right", []string{"pears"}, exitOK, "iOS"},
		{"second try", []string{"apples", "pears"}, exitOK, "this is not the backup password"},
		{"three wrong", []string{"apples", "plums", "figs"}, exitWrongBackup, "wrong backup password for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			user, program := openTerminal(t)
			cmd, _ := s.command("import", "--keep-unchanged", folder)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			shown := ""
			for _, word := range test.typed {
				shown += readUntil(t, user, "(empty: store the backup locked): ")
				answer(t, user, program, word)
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
				t.Errorf("%q is missing: %q", test.says, shown)
			}
			for _, word := range test.typed {
				if word != "" && strings.Contains(shown, word) {
					t.Errorf("%q is shown: %q", word, shown)
				}
			}
			if !echoes(t, program) {
				t.Error("the terminal does not echo afterwards")
			}
		})
	}
	// What has not changed needs no password, so nobody is asked.
	user, program := openTerminal(t)
	cmd, _ := s.command("import", folder)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if shown := readUntil(t, user, "stored decrypted"); strings.Contains(shown, "backup password") || !strings.Contains(shown, "unchanged since snapshot") {
		t.Errorf("unchanged: %q", shown)
	}
	snapshots := s.run(exitOK, "snapshots")
	if strings.Count(snapshots, " EL\n") != 1 || strings.Count(snapshots, " E\n") != 2 {
		t.Errorf("snapshots:\n%s", snapshots)
	}
}

// A device backup asks before the device sends anything, and tries the answer on the
// last snapshot. It asks again if the password does not open the received backup.
func TestDeviceBackupPasswordPrompt(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes nine backups")
	}
	t.Parallel()
	s := newRepo(t, "SNAP_BACKUP_PASSWORD=")
	l := s.lab(lab.Options{Seed: 3, Encrypt: synthetic.EncryptAll, Password: "pears"})
	device := l.Devices()[0]
	const (
		first  = "(empty: store the backup locked): "
		second = "(repeat it if it was changed on the device): "
	)
	type reply struct{ prompt, text string }
	for _, test := range []struct {
		name   string
		set    string // backup password that another computer sets first
		typed  []reply
		flags  []string
		says   string
		locked bool
	}{
		{name: "nothing", typed: []reply{{first, ""}}, says: "stored locked: the backup password is not known", locked: true},
		{name: "right", typed: []reply{{first, "pears"}}, says: "backup of"},
		{name: "second try", typed: []reply{{first, "apples"}, {second, "pears"}}, says: "this password does not unlock the last snapshot of"},
		{name: "changed", set: "plums", typed: []reply{{first, "plums"}, {second, "plums"}}, says: "backup of"},
		{name: "changed and wrong", set: "figs", typed: []reply{{first, "apples"}, {second, "apples"}, {first, "figs"}},
			flags: []string{"--keep-backup-password"}, says: "this is not the backup password of"},
		{name: "kept", says: "backup of"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.set != "" {
				device.Agent.SetPassword(test.set)
			}
			user, program := openTerminal(t)
			cmd, _ := s.command(append([]string{"backup"}, test.flags...)...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			shown := ""
			for _, a := range test.typed {
				shown += readUntil(t, user, a.prompt)
				answer(t, user, program, a.text)
			}
			_ = cmd.Wait()
			if _, err := io.WriteString(program, "(end)"); err != nil {
				t.Fatal(err)
			}
			shown += readUntil(t, user, "(end)")
			if code := cmd.ProcessState.ExitCode(); code != exitOK {
				t.Errorf("exit code %d: %s", code, shown)
			}
			if !strings.Contains(shown, test.says) {
				t.Errorf("%q is missing: %q", test.says, shown)
			}
			for _, a := range test.typed {
				if a.text != "" && strings.Contains(shown, a.text) {
					t.Errorf("%q is shown: %q", a.text, shown)
				}
			}
			var list []struct {
				Unlocked bool `json:"unlocked"`
			}
			s.json(&list, "snapshots")
			if list[len(list)-1].Unlocked == test.locked {
				t.Errorf("the last snapshot is unlocked: %v", list[len(list)-1].Unlocked)
			}
		})
	}
	noViolations(t, l)
}

// With several devices, all backup passwords are asked for before the first backup.
func TestPasswordsBeforeBackups(t *testing.T) {
	t.Parallel()
	s := newRepo(t, "SNAP_BACKUP_PASSWORD=")
	s.lab(lab.Options{Seed: 4, Devices: 2, Encrypt: synthetic.EncryptAll, Password: "pears"})
	user, program := openTerminal(t)
	cmd, _ := s.command("backup", "--all", "-j", "1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before := readUntil(t, user, "(empty: store the backup locked): ")
	answer(t, user, program, "pears")
	before += readUntil(t, user, "try this password on the other device, too, where none is known? [y/N] ")
	typeLine(t, user, "n")
	before += readUntil(t, user, "(empty: store the backup locked): ")
	answer(t, user, program, "apples") // of which snap learns only at the end
	after := readUntil(t, user, "2 of 2 devices backed up")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitPartial {
		t.Errorf("%v, want exit code %d", err, exitPartial)
	}
	if strings.Contains(before, "[1/2]") || !strings.Contains(after, "[2/2]") {
		t.Errorf("before the last question: %q, after it: %q", before, after)
	}
	if !strings.Contains(after, "1 of 2 devices was backed up with a problem") {
		t.Errorf("the wrong password is not reported: %q", after)
	}
}

// A person who looks after many devices types their common backup password once.
func TestOnePasswordForAllDevices(t *testing.T) {
	t.Parallel()
	s := newRepo(t, "SNAP_BACKUP_PASSWORD=")
	s.lab(lab.Options{Seed: 4, Devices: 3, Encrypt: synthetic.EncryptAll, Password: "pears"})
	user, program := openTerminal(t)
	cmd, _ := s.command("backup", "--all", "-j", "1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readUntil(t, user, "(empty: store the backup locked): ")
	answer(t, user, program, "pears")
	readUntil(t, user, "try this password on the other 2 devices, too, where none is known? [y/N] ")
	typeLine(t, user, "Y")
	after := readUntil(t, user, "3 of 3 devices backed up")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if strings.Contains(after, "backup password") {
		t.Errorf("it was asked for again: %q", after)
	}
}

// If a typed password also opens the next backup, import does not ask again.
func TestOnePasswordForAllFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := synthetic.Config{Seed: 52, Devices: 2, Encryption: synthetic.EncryptAll, Password: "pears", StateDir: t.TempDir()}
	if _, err := synthetic.Generate(context.Background(), dir, conf, 1); err != nil {
		t.Fatal(err)
	}
	s := newRepo(t)
	user, program := openTerminal(t)
	cmd, _ := s.command("import", dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readUntil(t, user, "(empty: store the backup locked): ")
	answer(t, user, program, "pears")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	typeLine(t, program, "(end)")
	if shown := readUntil(t, user, "(end)"); strings.Contains(shown, "backup password") || strings.Count(shown, "iOS") != 2 {
		t.Errorf("%q", shown)
	}
}
