package sftp

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// link is a connection to an SFTP server.
type link struct {
	in  io.WriteCloser // to the server
	out io.Reader      // from the server
	// kill ends the connection at once, so that reads and writes return.
	kill func()
	// wait returns when the connection has ended and out was read to its end. It returns
	// why it ended, as far as anybody knows; nil if for no reason.
	wait func() error
	// connected tells the link that the server answers.
	connected func()
}

// process is a link by a program such as ssh.
func process(args []string, prompt bool) (link, error) {
	cmd := exec.Command(args[0], args[1:]...)
	stderr := &tail{}
	cmd.Stderr = stderr
	// A master connection (ControlPersist) keeps the standard error of the ssh that made it.
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return link{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return link{}, err
	}
	release, err := startApart(cmd, prompt)
	if err != nil {
		return link{}, err
	}
	return link{
		in: in, out: out,
		kill: func() {
			_ = cmd.Process.Kill()
			// The pipes may be open in a child of the process, such as ProxyCommand.
			_ = in.Close()
			_ = out.Close()
		},
		wait: func() error {
			err := cmd.Wait()
			release()
			if errors.Is(err, exec.ErrWaitDelay) {
				err = nil
			}
			return exitError(err, stderr.String())
		},
		connected: release,
	}, nil
}

// exitError returns why a program ended, in its own words if it has printed any.
func exitError(err error, stderr string) error {
	if e, ok := errors.AsType[*exec.ExitError](err); ok && isInterrupted(e) {
		return errInterrupted
	}
	switch {
	case stderr != "":
		return &said{stderr}
	case err != nil:
		return err
	}
	return nil
}

// errInterrupted says that a person pressed Ctrl-C when ssh asked for something.
var errInterrupted = errors.New("ssh was interrupted")

// said is what ssh has printed to its standard error.
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
