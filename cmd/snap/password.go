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
	"slices"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/password"
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

// typed is a password as somebody gave it: in a file, in the output of a command, in a
// variable or at a prompt. All of these follow one rule, that of package password.
type typed struct {
	text []byte // nil if it is no text
	bad  error  // why it is no text
	from string // what gave it, such as SNAP_PASSWORD; empty if a person typed it
	// older are other bytes to open something with: those that earlier versions of
	// snap, which did not know byte order marks, made of the same input.
	older [][]byte
}

// newTyped returns a typed password with this text, or with the error that says why its
// input is no text. Empty and equal forms in older are dropped.
func newTyped(text []byte, bad error, older ...[]byte) (*typed, error) {
	t := &typed{text: text, bad: bad}
	for _, b := range older {
		known := len(b) == 0 || slices.ContainsFunc(t.tries(), func(have []byte) bool { return bytes.Equal(have, b) })
		if !known {
			t.older = append(t.older, bytes.Clone(b))
		}
	}
	if bad == nil && len(text) == 0 {
		return nil, errNoPassword
	}
	return t, nil
}

// typedLine returns the first line of b as a password.
func typedLine(b []byte, source string) (*typed, error) {
	line, err := password.FirstLine(b)
	return newTyped(line, notText(err, source), password.CutLine(b))
}

// typedText returns all of b as a password. If b ends with a line break, as the last
// variable of a file that Windows wrote, the password is also tried without the break.
func typedText(b []byte, source string) (*typed, error) {
	text, err := password.Text(b)
	return newTyped(text, notText(err, source), b, bytes.TrimRight(text, "\r\n"))
}

func notText(err error, source string) error {
	if err == nil {
		return nil
	}
	return usageError{fmt.Errorf("%s: %w", source, err)}
}

// tries returns the bytes to open something with, the most probable first.
func (t *typed) tries() [][]byte {
	if t.bad != nil {
		return t.older
	}
	return append([][]byte{t.text}, t.older...)
}

// asNew returns the text for use as a new password, or says why it cannot be one.
func (t *typed) asNew() ([]byte, error) {
	if t.bad != nil {
		return nil, t.bad
	}
	return t.text, checkNew(t.text)
}

func (t *typed) clear() {
	if t != nil {
		clear(t.text)
		clearAll(t.older)
	}
}

func clearAll(list [][]byte) {
	for _, b := range list {
		clear(b)
	}
}

// secrets returns the secrets with which to try to open a repository. The error for
// input that is no text is returned only if nothing opens.
func (t *typed) secrets() (secrets, error) {
	s := secrets{bad: t.bad}
	if t.from != "" {
		s.source = "password from " + t.from
	}
	for i, b := range t.tries() {
		s.resembles = s.resembles || crypto.ResemblesRecovery(string(b))
		secret, err := crypto.Secret(string(b))
		if err != nil && i == 0 {
			return secrets{}, s.named(err)
		}
		if err == nil {
			s.list = append(s.list, secret)
		}
	}
	return s, nil
}

// secrets are what a repository may be opened with.
type secrets struct {
	list   [][]byte
	source string // what gave them, or empty
	// resembles says that it may be a recovery key with a typing error.
	resembles bool
	isFile    bool   // the content of a key file, which nobody types
	bad       error  // if nothing opens the repository, this is the reason
	hint      string // what to do if they are wrong, if that depends on their source
}

func (s *secrets) clear() { clearAll(s.list) }

// given reports whether there are any.
func (s *secrets) given() bool { return s.list != nil || s.bad != nil }

// named adds to an error what gave the secrets.
func (s *secrets) named(err error) error {
	if s.source == "" {
		return err
	}
	return fmt.Errorf("%s: %w", s.source, err)
}

// given returns the password from the flags, the environment or the configuration file, or
// nil if there is none. Flags take precedence, then the environment.
func (a *app) given(ctx context.Context, file, command string) (*typed, error) {
	switch {
	case file != "":
		return a.readPasswordFile(file)
	case command != "":
		return a.runCommand(ctx, command)
	}
	t, err := fromVariable("SNAP_PASSWORD")
	if t != nil || err != nil {
		return t, err
	}
	if f := os.Getenv("SNAP_PASSWORD_FILE"); f != "" {
		if t, err = a.readPasswordFile(f); t != nil {
			t.from += " (SNAP_PASSWORD_FILE)"
		}
	} else if c := os.Getenv("SNAP_PASSWORD_COMMAND"); c != "" {
		if t, err = a.runCommand(ctx, c); t != nil {
			t.from = "SNAP_PASSWORD_COMMAND"
		}
	} else if v, ok := a.fromFile("password-file"); ok {
		if t, err = a.readPasswordFile(v.Text); t != nil {
			t.from += " (" + a.settings.place(v) + ")"
		} else if err != nil {
			err = fmt.Errorf("%s: %w", a.settings.place(v), err)
		}
	} else if v, ok := a.fromFile("password-command"); ok {
		if t, err = a.runCommand(ctx, v.Text); t != nil {
			t.from = "the password-command of " + a.settings.place(v)
		}
	}
	return t, err
}

// fromVariable returns the password that a variable of the environment has, or nil.
func fromVariable(name string) (*typed, error) {
	pw := os.Getenv(name)
	if pw == "" {
		return nil, nil
	}
	t, err := typedText([]byte(pw), name)
	if t != nil {
		t.from = name
	}
	return t, err
}

func (a *app) readPasswordFile(name string) (*typed, error) {
	b, err := a.readSecretFile(name, "password file")
	if err != nil {
		err = notGiven(fmt.Errorf("read the password: %w", err))
		if errors.Is(err, os.ErrNotExist) {
			err = advised{err, "write the password into the first line of this file, or name another one"}
		}
		return nil, err
	}
	defer clear(b)
	t, err := typedLine(b, "password file "+name)
	if errors.Is(err, errNoPassword) {
		err = advised{fmt.Errorf("file %s: %w", name, err), "write the password into the first line of this file"}
	}
	if t != nil {
		t.text, t.from = bytes.Clone(t.text), "file "+name
	}
	return t, err
}

func (a *app) readKeyFile(name string) ([]byte, error) {
	b, err := a.readSecretFile(name, "key file")
	if err != nil {
		return nil, notGiven(fmt.Errorf("read the key file: %w", err))
	}
	if len(b) < 16 {
		return nil, usageError{fmt.Errorf("key file %s has only %d bytes; it needs at least 16 random bytes, as from: head -c 32 /dev/urandom >%s", name, len(b), name)}
	}
	return b, nil
}

// notGiven makes it an error of the command line that a file does not exist.
func notGiven(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return usageError{err}
	}
	return err
}

// readSecretFile reads a file with a password or key. It warns if other users of the
// computer can read it, too.
func (a *app) readSecretFile(name, kind string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && readableByAll(name, info) {
		a.warn("every user of this computer can read the %s %s; to keep it to yourself: chmod 600 '%s'", kind, name, name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxKeyFile)
	}
	return b, err
}

// checkNew returns an error if a new password has characters that cannot be typed.
func checkNew(b []byte) error {
	if err := password.CheckNew(b); err != nil {
		return usageError{fmt.Errorf("the new password cannot be used: %w", err)}
	}
	return nil
}

func (a *app) runCommand(ctx context.Context, command string) (*typed, error) {
	shell := []string{"sh", "-c", command}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C", command}
	}
	c := exec.CommandContext(ctx, shell[0], shell[1:]...)
	c.Stdin, c.Stderr = a.stdin, a.stderr
	c.Env = withoutPasswords(os.Environ())
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("the password command failed: %w", err)
	}
	const source = "the output of the password command"
	t, err := typedLine(out, source)
	if errors.Is(err, errNoPassword) {
		err = fmt.Errorf("%s: %w", source, err)
	}
	if t != nil {
		t.from = source
	}
	return t, err
}

// withoutPasswords returns an environment without the variables that have passwords,
// such as SNAP_PASSWORD and SNAP_BACKUP_PASSWORD: a command that finds out one
// password need not see the others.
func withoutPasswords(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		name = strings.ToUpper(name) // Windows ignores case
		return strings.HasPrefix(name, "SNAP_") && strings.HasSuffix(name, "PASSWORD")
	})
}

// input returns a reader of the lines of standard input. UTF-16 is decoded, because in
// it the byte that ends a line is a part of other characters, too.
func (a *app) input() *bufio.Reader {
	if a.lines != nil {
		return a.lines
	}
	a.lines = bufio.NewReader(io.LimitReader(a.stdin, maxKeyFile))
	// Wait for a second byte only if the first one can begin a byte order mark.
	if b, err := a.lines.Peek(1); err != nil || b[0] < 0xfe {
		return a.lines
	}
	if b, err := a.lines.Peek(2); err != nil || !password.IsUTF16(b) {
		return a.lines
	}
	all, err := io.ReadAll(a.lines)
	text, bad := password.Text(all)
	if err != nil || bad != nil {
		text = all // and whoever reads a password finds out that it is no text
	}
	a.firstRaw = bytes.Clone(password.CutLine(all))
	a.lines = bufio.NewReader(bytes.NewReader(text))
	return a.lines
}

// askInput reads a password as a line of standard input.
func (a *app) askInput(ways passwordWays) (*typed, error) {
	lines := a.input()
	raw := a.firstRaw
	a.firstRaw = nil
	line, err := lines.ReadBytes('\n')
	if len(line) == 0 && err != nil {
		return nil, usageError{fmt.Errorf("no password: use %s, or run this in a terminal", ways)}
	}
	const source = "the password in standard input"
	text, err := password.FirstLine(line)
	t, err := newTyped(text, notText(err, source), password.CutLine(line), raw)
	if t != nil {
		t.from = "standard input"
	}
	return t, err
}

// ask reads a password: at a terminal without echo, otherwise as a line of standard
// input. If there is no line, the error names the other ways to give the password.
func (a *app) ask(ctx context.Context, prompt string, ways passwordWays) (*typed, error) {
	f := a.keyboard()
	if f == nil {
		return a.askInput(ways)
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
		return typedText(got.b, "the password")
	case <-ctx.Done():
		// The goroutine keeps waiting for input, so the echo is restored here.
		_ = term.Restore(fd, state)
		fmt.Fprintln(a.stderr)
		return nil, ctx.Err()
	}
}

// askNew prompts for a new password, twice at a terminal.
func (a *app) askNew(ctx context.Context, what string, ways passwordWays) (*typed, error) {
	first, err := a.ask(ctx, fmt.Sprintf("new password for %s: ", what), ways)
	if err != nil {
		return nil, orInterrupted(ctx, err, nothingDone)
	}
	if a.keyboard() == nil {
		return first, nil
	}
	again, err := a.ask(ctx, "repeat the password: ", ways)
	if err != nil {
		return nil, orInterrupted(ctx, err, nothingDone)
	}
	defer again.clear()
	if !bytes.Equal(first.text, again.text) {
		return nil, advised{usageError{errors.New("the two passwords differ")},
			"nothing was changed; run the same command again and type the same password twice"}
	}
	return first, nil
}

// canAsk reports whether there is a person to ask: standard input is a terminal, and
// --json is not given.
func (a *app) canAsk() bool { return a.keyboard() != nil && !a.json }

// keyboard returns standard input if it is a terminal, otherwise nil.
func (a *app) keyboard() *os.File {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// askLine prompts for a line that is not secret.
func (a *app) askLine(ctx context.Context, prompt string) (string, error) {
	if a.keyboard() != nil {
		fmt.Fprint(a.stderr, prompt)
	}
	type answer struct {
		line string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := a.input().ReadString('\n') // input waits for a first byte, too
		read <- answer{line, err}
	}()
	select {
	case got := <-read:
		if got.err != nil && !errors.Is(got.err, io.EOF) {
			return "", got.err
		}
		return strings.TrimSpace(strings.TrimPrefix(got.line, "\ufeff")), nil
	case <-ctx.Done():
		if a.keyboard() != nil {
			fmt.Fprintln(a.stderr)
		}
		return "", ctx.Err()
	}
}
