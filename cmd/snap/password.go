package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"golang.org/x/term"
)

// maxKeyFile is the largest size of a key file or password file, in bytes.
const maxKeyFile = 1 << 20

// errNoPassword says that a password is empty.
var errNoPassword = usageError{errors.New("the password is empty")}

// passwordWays names the flags and the variable that give a password without a
// prompt.
type passwordWays string

const (
	repoPassword      passwordWays = "--password-file, --password-command or SNAP_PASSWORD"
	newRepoPassword   passwordWays = "--new-password-file or --new-password-command"
	targetPassword    passwordWays = "--to-password-file, --to-password-command or SNAP_TO_PASSWORD"
	otherPassword     passwordWays = "--from-password-file or SNAP_FROM_PASSWORD"
	oldBackupPassword passwordWays = "--backup-password-file, --backup-password-command or SNAP_BACKUP_PASSWORD"
	newBackupPassword passwordWays = "--new-backup-password-file or SNAP_NEW_BACKUP_PASSWORD"
)

// secret returns the secret that opens a repository, from flags, the environment or a
// prompt.
func (a *app) secret(ctx context.Context, dir string) ([]byte, error) {
	if a.keyFile != "" {
		return readKeyFile(a.keyFile)
	}
	typed, err := a.given(ctx, a.passwordFile, a.passwordCommand)
	if err == nil && typed == nil {
		typed, err = a.ask(ctx, fmt.Sprintf("password for repository %s: ", dir), repoPassword)
	}
	if err != nil {
		return nil, err
	}
	defer clear(typed)
	return crypto.Secret(string(typed))
}

// given returns the password from the flags or the environment, or nil if there is
// none. Flags take precedence.
func (a *app) given(ctx context.Context, file, command string) ([]byte, error) {
	switch {
	case file != "":
		return readPasswordFile(file)
	case command != "":
		return a.runCommand(ctx, command)
	}
	if pw, ok := os.LookupEnv("SNAP_PASSWORD"); ok && pw != "" {
		return []byte(pw), nil
	}
	if f := os.Getenv("SNAP_PASSWORD_FILE"); f != "" {
		return readPasswordFile(f)
	}
	if c := os.Getenv("SNAP_PASSWORD_COMMAND"); c != "" {
		return a.runCommand(ctx, c)
	}
	return nil, nil
}

func readPasswordFile(name string) ([]byte, error) {
	b, err := readSmall(name)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	return firstLine(b)
}

func readKeyFile(name string) ([]byte, error) {
	b, err := readSmall(name)
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if len(b) < 16 {
		return nil, usageError{fmt.Errorf("key file %s has only %d bytes; it needs at least 16 random bytes", name, len(b))}
	}
	return b, nil
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxKeyFile)
	}
	return b, err
}

// firstLine returns the first line of b.
func firstLine(b []byte) ([]byte, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, errNoPassword
	}
	return line, nil
}

func (a *app) runCommand(ctx context.Context, command string) ([]byte, error) {
	shell := []string{"sh", "-c", command}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C", command}
	}
	c := exec.CommandContext(ctx, shell[0], shell[1:]...)
	c.Stdin, c.Stderr = a.stdin, a.stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("the password command failed: %w", err)
	}
	return firstLine(out)
}

// ask reads a password: at a terminal without echo, otherwise as a line of standard
// input. If there is no line, the error names the other ways to give the password.
func (a *app) ask(ctx context.Context, prompt string, ways passwordWays) ([]byte, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		if a.lines == nil {
			a.lines = bufio.NewReader(io.LimitReader(a.stdin, maxKeyFile))
		}
		line, err := a.lines.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return nil, usageError{fmt.Errorf("no password: use %s, or run this in a terminal", ways)}
		}
		return firstLine(line)
	}
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(a.stderr, prompt)
	type answer struct {
		b   []byte
		err error
	}
	read := make(chan answer, 1)
	go func() {
		b, err := term.ReadPassword(fd)
		read <- answer{b, err}
	}()
	select {
	case got := <-read:
		fmt.Fprintln(a.stderr)
		if got.err != nil {
			return nil, got.err
		}
		if len(got.b) == 0 {
			return nil, errNoPassword
		}
		return got.b, nil
	case <-ctx.Done():
		// The goroutine keeps waiting for input, so the echo is restored here.
		_ = term.Restore(fd, state)
		fmt.Fprintln(a.stderr)
		return nil, ctx.Err()
	}
}

// askNew prompts for a new password, twice at a terminal.
func (a *app) askNew(ctx context.Context, what string, ways passwordWays) ([]byte, error) {
	first, err := a.ask(ctx, fmt.Sprintf("new password for %s: ", what), ways)
	if err != nil {
		return nil, err
	}
	if f, ok := a.stdin.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return first, nil
	}
	again, err := a.ask(ctx, "repeat the password: ", ways)
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(first, again) {
		return nil, advised{usageError{errors.New("the two passwords differ")},
			"nothing was changed; run the same command again and type the same password twice"}
	}
	return first, nil
}

// askLine prompts for a line that is not secret.
func (a *app) askLine(ctx context.Context, prompt string) (string, error) {
	f, ok := a.stdin.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.stderr, prompt)
	}
	if a.lines == nil {
		a.lines = bufio.NewReader(io.LimitReader(a.stdin, maxKeyFile))
	}
	type answer struct {
		line string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := a.lines.ReadString('\n')
		read <- answer{line, err}
	}()
	select {
	case got := <-read:
		if got.err != nil && !errors.Is(got.err, io.EOF) {
			return "", got.err
		}
		return strings.TrimSpace(got.line), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
