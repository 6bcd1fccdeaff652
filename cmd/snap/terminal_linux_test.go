package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"golang.org/x/sys/unix"
)

// openTerminal returns the two ends of a pseudo terminal.
func openTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	user = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// readUntil returns what the program shows up to and including a text.
func readUntil(t *testing.T, user *os.File, text string) string {
	t.Helper()
	seen, buf := "", make([]byte, 1000)
	for !strings.Contains(seen, text) {
		if err := user.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := user.Read(buf)
		seen += string(buf[:n])
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, seen)
		}
	}
	return seen
}

// answer waits until a password prompt has switched the echo off. Then it types an
// answer.
func answer(t *testing.T, user, program *os.File, text string) {
	t.Helper()
	waitFor(t, func() bool { return !echoes(t, program) })
	typeLine(t, user, text)
}

// typeLine answers a question whose answer is not secret.
func typeLine(t *testing.T, user *os.File, text string) {
	t.Helper()
	if _, err := io.WriteString(user, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

func echoes(t *testing.T, program *os.File) bool {
	t.Helper()
	term, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return term.Lflag&unix.ECHO != 0
}

// A typed password is not shown. Afterwards the terminal is as before, even if
// Ctrl-C ends the prompt.
func TestPasswordPrompt(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	for _, test := range []struct {
		name  string
		typed []string
		code  int
		says  string
	}{
		{"right", []string{"sesame"}, exitOK, "no snapshots"},
		{"third try", []string{"barley", "rye", "sesame"}, exitOK, "this password does not open the repository; try again"},
		{"wrong", []string{"barley", "rye", "oats"}, exitWrongPass, "repo: wrong password"},
		{"empty", []string{""}, exitUsage, "the password is empty"},
		{"interrupt", nil, exitInterrupted, "nothing was done"},
	} {
		t.Run(test.name, func(t *testing.T) {
			user, program := openTerminal(t)
			cmd, _ := s.command("snapshots")
			cmd.Env = append(cmd.Env, "SNAP_PASSWORD=")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			prompt, shown := "password for repository "+s.repo+": ", ""
			for _, word := range test.typed {
				shown += readUntil(t, user, prompt)
				answer(t, user, program, word)
			}
			if test.code == exitInterrupted {
				shown += readUntil(t, user, prompt)
				waitFor(t, func() bool { return !echoes(t, program) })
				if err := cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !echoes(t, program) {
				t.Error("the terminal does not echo afterwards")
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
					t.Errorf("the password is shown: %q", shown)
				}
			}
		})
	}
}

// onTerminal runs a command on a terminal of 80 columns and returns what it prints there.
// The terminal ends lines with \r\n.
func (s *shell) onTerminal(code int, args ...string) string {
	s.t.Helper()
	user, program := openTerminal(s.t)
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		s.t.Fatal(err)
	}
	cmd, _ := s.command(args...)
	cmd.Stdout, cmd.Stderr = program, program
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		_, _ = io.WriteString(program, "(end)")
	}()
	shown := readUntil(s.t, user, "(end)")
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("%v: exit code %d, want %d", args, got, code)
	}
	return strings.ReplaceAll(strings.TrimSuffix(shown, "(end)"), "\r\n", "\n")
}

// checkFits reports lines that are wider than a terminal.
func checkFits(t *testing.T, shown string) {
	t.Helper()
	for line := range strings.Lines(shown) {
		if n := width(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// On a terminal, messages and tables fit its width. Without one, a message is one line.
func TestFitsTerminal(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	for _, args := range [][]string{{"help", "backup"}, {"key", "list"}, {"check"}, {"status"}, {"stats"}, {"snapshots", "--device", "x", "y"}} {
		code := map[string]int{"snapshots": exitUsage, "status": exitAttention}[args[0]]
		checkFits(t, s.onTerminal(code, args...))
	}
	s.env = append(s.env, device.AddressVariable+"=UNIX:/nonexistent/usbmuxd")
	shown := s.onTerminal(exitNoDevice, "devices")
	checkFits(t, shown)
	if plain := s.run(exitNoDevice, "devices"); strings.Count(plain, "\n") >= strings.Count(shown, "\n") {
		t.Errorf("on a terminal %q, elsewhere %q", shown, plain)
	}
}

// So do those of commands that show a backup.
func TestBackupsFitTerminal(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	folder := filepath.Join(t.TempDir(), "Backup")
	s.run(exitOK, "generate", "--scale", "tiny", "--devices", "1", folder)
	for _, args := range [][]string{
		{"import", "--dry-run", folder}, {"import", folder}, {"import", folder}, {"verify", "--level", "full"}, {"drill"}, {"show", "latest"},
		{"snapshots"}, {"stats", "latest"}, {"stats", "--by", "app"}, {"forget", "--keep-daily", "7", "--keep-weekly", "5", "--keep-monthly", "12", "--dry-run"},
		{"pin", "latest", "--reason", strings.Repeat("a long reason ", 9)}, {"snapshots"}, {"prune", "--dry-run"}, {"help", "simulate"},
	} {
		// A path is not broken, so that it can be copied; that of this test is long.
		checkFits(t, strings.ReplaceAll(s.onTerminal(exitOK, args...), folder, "FOLDER"))
	}
}

// Colours need a terminal that obeys them, and a user who wants them.
func TestColoursOnTerminal(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	for _, test := range []struct {
		name, env string
		args      []string
		want      bool
	}{
		{"terminal", "TERM=xterm", nil, true},
		{"NO_COLOR", "NO_COLOR=1", nil, false},
		{"empty NO_COLOR", "NO_COLOR=", nil, true},
		{"dumb", "TERM=dumb", nil, false},
		{"never", "TERM=xterm", []string{"--color", "never"}, false},
		{"always", "NO_COLOR=1", []string{"--color=always"}, true},
		{"json", "TERM=xterm", []string{"--json", "--color=always"}, false},
	} {
		one := *s
		one.env = append([]string{"TERM=xterm"}, test.env)
		shown := one.onTerminal(exitOK, append([]string{"check"}, test.args...)...)
		if got := strings.Contains(shown, string(good)); got != test.want {
			t.Errorf("%s: colours: %v: %q", test.name, got, shown)
		}
	}
	if shown := s.run(exitUsage, "check", "--color=green"); !strings.Contains(shown, "auto, always or never") {
		t.Errorf("got %q", shown)
	}
	if shown := s.run(exitOK, "check", "--color=always"); !strings.Contains(shown, string(good)) {
		t.Errorf("--color=always in a pipe: %q", shown)
	}
}

// Progress has a line for each device, which is redrawn in place. A message goes above it.
func TestProgressOfDevices(t *testing.T) {
	user, program := openTerminal(t)
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 4, Col: 80}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TERM", "xterm")
	a := &app{stderr: program}
	b := &board{a: a}
	for _, name := range []string{"Anna", "a device with a long name"} {
		b.views = append(b.views, &view{board: b, name: name, phase: "receiving", storing: &blob.Progress{}})
	}
	start := time.Now()
	b.show(start)
	b.views[0].progress = backup2.Progress{Percent: 99.9, Bytes: 3 << 20, Files: 2}
	b.show(start.Add(3 * time.Second))
	b.say(func() { fmt.Fprintln(program, "a message") })
	b.views[0].done()
	b.show(start.Add(4 * time.Second))
	for range 3 {
		b.views = append(b.views, &view{board: b, name: "more", phase: "sending", storing: &blob.Progress{}})
	}
	b.show(start.Add(5 * time.Second))
	b.say(func() { fmt.Fprint(program, "(end)") })
	const up = "\r\x1b[1A\x1b[J"
	want := "Anna: receiving\r\na device with a lon…: receiving" +
		up + "Anna: receiving  99%, 3.0 MiB, 1.0 MiB/s, 2 files\r\na device with a lon…: receiving" +
		up + "a message\r\na device with a lon…: receiving" +
		eraseLine + "a device with a lon…: receiving\r\nmore: sending\r\nand 2 more devices" +
		"\r\x1b[2A\x1b[J(end)"
	if shown := readUntil(t, user, "(end)"); shown != want {
		t.Errorf("got\n%q\nwant\n%q", shown, want)
	}
}
