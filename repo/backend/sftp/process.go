package sftp

import (
	"errors"
	"io"

	"github.com/snap-backup/snap/internal/child"
	"github.com/snap-backup/snap/repo/backend/limit"
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

// limited returns a link that keeps limits.
func (l link) limited(limits *limit.Limits) link {
	out, in, stop := limits.Pipe(l.out, l.in)
	kill := l.kill
	l.out, l.in, l.kill = out, in, func() { stop(); kill() }
	return l
}

// process is a link by a program such as ssh.
func process(args []string, prompt bool) (link, error) {
	c, err := child.Start(args, child.Options{Prompt: prompt})
	if err != nil {
		return link{}, err
	}
	wait := func() error {
		err := c.Wait()
		if errors.Is(err, child.ErrInterrupted) {
			return errInterrupted
		}
		return err
	}
	return link{in: c.In, out: c.Out, kill: c.Kill, wait: wait, connected: c.Release}, nil
}

// errInterrupted says that a person pressed Ctrl-C when ssh asked for something.
var errInterrupted = errors.New("ssh was interrupted")
