// Package child runs a program that a protocol is spoken with, over its standard input and
// output. The program is in a process group of its own, so that Ctrl-C does not end it before
// this process has done so. What it prints to its standard error is kept for messages. It does
// not get the variables with snap's passwords.
package child

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// Child is a program that runs.
type Child struct {
	In  io.WriteCloser // to the program
	Out io.Reader      // from the program
	// Kill ends the program at once, so that reads and writes return.
	Kill func()
	// Wait returns when the program has ended and Out was read to its end. It returns why it
	// ended, in its own words if it has printed any; nil if for no reason.
	Wait func() error
	// Said returns the last lines that the program has printed to its standard error, as one.
	Said func() string
	// Release brings this process back to the foreground of its terminal, if the program was
	// allowed to ask for something. It may be called often.
	Release func()
}

// Options are the settings of a program.
type Options struct {
	// Prompt lets the program ask for something at the terminal, until Release.
	Prompt bool
	// DieWithParent kills the program when this process ends, however it ends, on systems
	// that can do it (Linux). Elsewhere, only the end of its standard input tells it.
	DieWithParent bool
}

// Start starts a program.
func Start(args []string, o Options) (*Child, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = slices.DeleteFunc(cmd.Environ(), isPassword)
	stderr := &tail{}
	cmd.Stderr = stderr
	// A child of the program may keep its standard error, such as a master connection of ssh
	// (ControlPersist).
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	release, err := startApart(cmd, o, ended)
	if err != nil {
		return nil, err
	}
	return &Child{
		In: in, Out: out,
		Kill: func() {
			_ = cmd.Process.Kill()
			// The pipes may be open in a child of the program, such as ProxyCommand.
			_ = in.Close()
			_ = out.Close()
		},
		Wait: func() error {
			err := cmd.Wait()
			close(ended)
			release()
			if errors.Is(err, exec.ErrWaitDelay) {
				err = nil
			}
			return exitError(err, stderr.String())
		},
		Said:    stderr.String,
		Release: release,
	}, nil
}

// isPassword reports whether a variable has a password of snap, which no other program needs.
func isPassword(variable string) bool {
	name, _, _ := strings.Cut(strings.ToUpper(variable), "=")
	return strings.HasPrefix(name, "SNAP_") && strings.HasSuffix(name, "PASSWORD")
}

// exitError returns why a program ended, in its own words if it has printed any.
func exitError(err error, stderr string) error {
	if e, ok := errors.AsType[*exec.ExitError](err); ok && isInterrupted(e) {
		return ErrInterrupted
	}
	switch {
	case stderr != "":
		return &said{stderr}
	case err != nil:
		return err
	}
	return nil
}

// ErrInterrupted says that a person pressed Ctrl-C when a program asked for something.
var ErrInterrupted = errors.New("the program was interrupted")

// said is what a program has printed to its standard error.
type said struct{ text string }

func (s *said) Error() string { return s.text }

// tail keeps the last lines that a program prints to its standard error.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const maxTail = 2000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if extra := len(t.text) - maxTail; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(p), nil
}

// String returns the lines as one, without what is not about the connection.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(t.text)) {
		line = strings.Trim(strings.Map(printable, line), " @") // ssh frames warnings with @
		if line == "" || strings.HasPrefix(line, "Warning: Permanently added") {
			continue
		}
		lines = append(lines, line)
	}
	const most = 8
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return strings.Join(lines, "; ")
}

// printable removes characters that could change the terminal: a server can send them.
func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r < ' ' || r >= 0x7f && r < 0xa0:
		return -1
	}
	return r
}

func missingProgram(name string, err error) error {
	return fmt.Errorf("run %s: %w", name, err)
}

// SplitWords divides a command line as a shell does: at spaces that are not in quotes.
// A backslash takes the meaning from the character after it, except between single quotes.
// Nothing is expanded. On Windows, write \\ for \ or use single quotes.
func SplitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, escaped, quote := false, false, rune(0)
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			inWord, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			inWord, quote = true, r
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("a %c is not closed", quote)
	case escaped:
		return nil, errors.New(`it ends with a \`)
	case inWord:
		words = append(words, word.String())
	}
	return words, nil
}
