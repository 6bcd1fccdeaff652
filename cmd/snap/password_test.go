package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
)

// runHere runs snap in this process, without variables that have passwords.
func runHere(t *testing.T, stdin string, args ...string) (code int, stderr string) {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: io.Discard, stderr: &out, options: cheap}
	code = a.run(context.Background(), args)
	return code, out.String()
}

var cheap = repo.Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}}

// TestOlderPasswords checks that a repository opens with the file, command, variable
// or input that an earlier version of snap made it from. These versions took its bytes
// without regard to byte order marks, NUL and carriage returns.
func TestOlderPasswords(t *testing.T) {
	t.Setenv("SNAP_PASSWORD", "")
	for name, test := range map[string]struct {
		given  string // what is in the file
		secret string // what was used
	}{
		"a byte order mark": {"\xef\xbb\xbfsesame\r\n", "\xef\xbb\xbfsesame"},
		"UTF-16":            {"\xff\xfes\x00e\x00s\x00\r\x00\n\x00", "\xff\xfes\x00e\x00s\x00\r\x00"},
		"UTF-16, big":       {"\xfe\xff\x00s\x00e\x00s\n", "\xfe\xff\x00s\x00e\x00s"},
		"a NUL":             {"ses\x00ame\n", "ses\x00ame"},
		"a cut UTF-16":      {"\xff\xfes\x00e\x00s", "\xff\xfes\x00e\x00s"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "repo")
			be, err := local.Create(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := repo.Create(t.Context(), be, []byte(test.secret), crypto.SlotInfo{Kind: crypto.KeyFileSlot}, cheap); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "password")
			if err := os.WriteFile(file, []byte(test.given), 0o600); err != nil {
				t.Fatal(err)
			}
			const advice = "snap key passwd"
			for _, args := range [][]string{{"--password-file", file}, {"--password-command", "cat '" + file + "'"}} {
				if code, stderr := runHere(t, "", append(args, "key", "list", "-r", dir)...); code != 0 || !strings.Contains(stderr, advice) {
					t.Errorf("%s: code %d: %s", args[0], code, stderr)
				}
			}
			if code, stderr := runHere(t, test.given, "key", "list", "-r", dir); code != 0 || !strings.Contains(stderr, advice) {
				t.Errorf("standard input: code %d: %s", code, stderr)
			}
			// The advice ends it.
			if code, stderr := runHere(t, "typed\n", "--password-file", file, "key", "passwd", "-r", dir); code != 0 {
				t.Errorf("passwd: code %d: %s", code, stderr)
			}
			if code, stderr := runHere(t, "typed\n", "key", "list", "-r", dir); code != 0 || stderr != "" {
				t.Errorf("after passwd: code %d: %s", code, stderr)
			}
		})
	}
}

// TestPasswordChannels checks that the same text is the same password, whatever gives
// it, and that what nobody can type becomes no password.
func TestPasswordChannels(t *testing.T) {
	t.Setenv("SNAP_PASSWORD", "")
	dir := t.TempDir()
	channels := map[string]func(t *testing.T, given string, args ...string) (int, string){
		"file": func(t *testing.T, given string, args ...string) (int, string) {
			file := filepath.Join(t.TempDir(), "password")
			if err := os.WriteFile(file, []byte(given), 0o600); err != nil {
				t.Fatal(err)
			}
			return runHere(t, "", append(args, "--password-file", file)...)
		},
		"input": func(t *testing.T, given string, args ...string) (int, string) { return runHere(t, given, args...) },
		"variable": func(t *testing.T, given string, args ...string) (int, string) {
			t.Setenv("SNAP_PASSWORD", given)
			defer os.Unsetenv("SNAP_PASSWORD")
			return runHere(t, "", args...)
		},
	}
	repos := map[string]string{}
	for name, run := range channels {
		repos[name] = filepath.Join(dir, name)
		if code, stderr := run(t, "gehe\u00efm", "init", "-q", "-r", repos[name]); code != 0 {
			t.Fatalf("%s: code %d: %s", name, code, stderr)
		}
	}
	for maker, r := range repos {
		for opener, run := range channels {
			for _, given := range []string{"gehe\u00efm", "gehei\u0308m", "\xef\xbb\xbfgehe\u00efm", "gehe\u00efm\r\n", "\xff\xfeg\x00e\x00h\x00e\x00\xef\x00m\x00\r\x00\n\x00"} {
				if strings.Contains(given, "\x00") && opener == "variable" {
					continue // no system has such variables
				}
				if code, stderr := run(t, given, "key", "list", "-r", r); code != 0 || stderr != "" {
					t.Errorf("made by %s, opened by %s with %q: code %d: %s", maker, opener, given, code, stderr)
				}
			}
		}
	}
	for name, run := range channels {
		for _, bad := range []string{"a\x00b\n", "a\rb", "a\r\r\n", "a\x1b", "a\xffb", "\xff\xfea"} {
			if strings.Contains(bad, "\x00") && name == "variable" {
				continue
			}
			for _, command := range []string{"init", "key add"} {
				r := filepath.Join(dir, "none")
				if command != "init" {
					r = repos["file"]
				}
				args := append(strings.Fields(command), "-q", "-r", r)
				var code int
				var stderr string
				if command == "init" {
					code, stderr = run(t, bad, args...)
				} else {
					file := filepath.Join(t.TempDir(), "new")
					if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
						t.Fatal(err)
					}
					code, stderr = run(t, "gehe\u00efm", append(args, "--new-password-file", file)...)
				}
				if code != 2 || !strings.Contains(stderr, "it is not text") {
					t.Errorf("%s by %s with %q: code %d: %s", command, name, bad, code, stderr)
				}
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
			t.Fatal("a refused init has made a folder")
		}
	}
}

func TestPasswordCommandSeesNoPasswords(t *testing.T) {
	got := withoutPasswords([]string{"HOME=/x", "SNAP_PASSWORD=a", "SNAP_BACKUP_PASSWORD=b", "snap_to_password=c", "SNAP_PASSWORD_FILE=f", "SNAP_REPOSITORY=r"})
	if want := []string{"HOME=/x", "SNAP_PASSWORD_FILE=f", "SNAP_REPOSITORY=r"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
