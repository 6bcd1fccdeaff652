package sftp

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/snap-backup/snap/internal/child"
	"github.com/snap-backup/snap/repo/backend/limit"
)

// Options change how a server is reached.
type Options struct {
	// Command is a program that speaks SFTP on its standard input and output, with its
	// arguments, in place of ssh. See [child.SplitWords] for quotes.
	Command string
	// Args are more arguments of ssh, such as "-i ~/.ssh/nas". They come before those of
	// this package, and ssh uses the first value of an option.
	Args string
	// NoPrompt keeps ssh from asking for passwords even if there is a terminal.
	NoPrompt bool
	// Limits are how many bytes per second pass to and from the program; nil for no limit.
	Limits *limit.Limits

	// dial replaces the process in tests.
	dial func() (link, error)
}

// argv returns the command line that reaches the server.
func argv(c Config, opts Options, prompt bool) ([]string, error) {
	if opts.Command != "" {
		words, err := child.SplitWords(opts.Command)
		if err == nil && len(words) == 0 {
			err = errors.New("it is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("sftp.command: %w", err)
		}
		return words, nil
	}
	args, err := child.SplitWords(opts.Args)
	if err != nil {
		return nil, fmt.Errorf("sftp.args: %w", err)
	}
	args = slices.Concat([]string{"ssh"}, args, sshOptions)
	if !prompt {
		args = append(args, "-oBatchMode=yes")
	}
	if c.Port != 0 {
		args = append(args, "-p", strconv.Itoa(c.Port))
	}
	if c.User != "" {
		args = append(args, "-l", c.User)
	}
	return append(args, "-s", "--", c.Host, "sftp"), nil
}

// sshOptions are the options that OpenSSH's own sftp gives to ssh, and a limit of a minute
// until ssh notices that the server does not answer any more, and of two until it has said who
// it is: meanwhile a person may type the password of a jump host. Without these limits, ssh
// waits forever.
var sshOptions = []string{
	"-oForwardX11=no", "-oForwardAgent=no", "-oPermitLocalCommand=no", "-oClearAllForwardings=yes",
	"-oRequestTTY=no", "-oServerAliveInterval=15", "-oServerAliveCountMax=4", "-oConnectTimeout=120",
}
