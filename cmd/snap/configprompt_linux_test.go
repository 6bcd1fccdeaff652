package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// config init asks its questions at a terminal. Ctrl-C ends it at each of them at once, and
// nothing is written.
func TestConfigQuestions(t *testing.T) {
	t.Parallel()
	s := newRepo(t)
	const first, second, file = "folder of the repository [", "1, 2, 3 or 4 [1]: ", "file: "
	for _, test := range []struct {
		name  string
		typed []string // after each prompt; Ctrl-C at the last one if there are fewer
		asked []string
		code  int
		says  string
		holds string
	}{
		{"defaults", []string{"", ""}, []string{first, second}, exitOK, "wrote ", "# keyring = true"},
		{"password file", []string{"", "3", "/etc/word"}, []string{first, second, file}, exitOK, "There is no file /etc/word yet: write the password into", "password-file = '/etc/word'"},
		{"keyring", []string{"", "2"}, []string{first, second}, exitOK, `"snap key remember" stores`, "keyring = true\n"},
		{"no such answer", []string{"", "5"}, []string{first, second}, exitUsage, "nothing was written", ""},
		{"Ctrl-C at once", nil, []string{first}, exitInterrupted, "nothing was written", ""},
		{"Ctrl-C later", []string{"", "3"}, []string{first, second, file}, exitInterrupted, "nothing was written", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snap.toml")
			user, program := openTerminal(t)
			cmd, _ := s.command("config", "init")
			cmd.Env = append(cmd.Env, "SNAP_CONFIG="+path, "SNAP_REPOSITORY="+s.repo)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			shown := ""
			for i, prompt := range test.asked {
				shown += readUntil(t, user, prompt)
				if i == len(test.typed) {
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Fatal(err)
					}
					break
				}
				if _, err := io.WriteString(user, test.typed[i]+"\n"); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if _, err := io.WriteString(program, "(end)"); err != nil {
				t.Fatal(err)
			}
			if shown += readUntil(t, user, "(end)"); !strings.Contains(shown, test.says) {
				t.Errorf("%q is missing: %q", test.says, shown)
			}
			text, err := os.ReadFile(path)
			if (err == nil) != (test.code == exitOK) || !strings.Contains(string(text), test.holds) {
				t.Errorf("%v: the file has %q, want %q", err, text, test.holds)
			}
		})
	}
}
