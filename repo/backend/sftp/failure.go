package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"

	"github.com/pkg/sftp"

	"github.com/snap-backup/snap/repo/backend"
)

// opError returns the error of an operation: "op ADDRESS/NAME: reason (what to do)".
func (b *Backend) opError(op, name string, err error) error {
	where := b.config.String()
	if name != "" {
		where = strings.TrimSuffix(where, "/") + "/" + name
	}
	hint := b.hint(err)
	if hint != "" {
		hint = " (" + hint + ")"
	}
	return fmt.Errorf("%s %s: %w%s", op, where, err, hint)
}

// advice is an error that says what to do.
type advice struct {
	error
	hint string
}

func (a *advice) Unwrap() error { return a.error }

func (b *Backend) hint(err error) string {
	if a, ok := errors.AsType[*advice](err); ok {
		return a.hint
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, backend.ErrOutOfReach):
		return ""
	case errors.Is(err, backend.ErrNoSpace):
		return "free some space on the server"
	case errors.Is(err, errReadOnly):
		return "mount it for writing"
	case errors.Is(err, fs.ErrPermission):
		return "check the owner and permissions of the folder on the server"
	case errors.Is(err, backend.ErrNotFolder):
		return "move it away, and put the folder back in its place"
	case errors.Is(err, backend.ErrNotRegular) && !errors.Is(err, backend.ErrNotExist):
		return "move it away; a file of the repository had this name"
	}
	return ""
}

// connectError returns why no connection was made. reason is what ssh says, handshake what
// went wrong before the server's first answer.
func (b *Backend) connectError(reason, handshake error) error {
	if errors.Is(reason, errInterrupted) {
		return fmt.Errorf("%w: %w", errInterrupted, context.Canceled)
	}
	err := reason
	switch {
	case reason == nil && handshake != nil && !errors.Is(handshake, errGarbled):
		err = errSilent
	case reason == nil:
		err = &advice{errGarbled, fmt.Sprintf("try %q: if anything is printed before its prompt, remove that from the start file of the shell there", b.config.login("sftp", "-P"))}
	}
	line, hint, passes := b.connectHint(err)
	if line != "" {
		err = errors.New(line)
	}
	if a, ok := errors.AsType[*advice](err); ok {
		hint = a.hint
	}
	err = &advice{fmt.Errorf("cannot connect: %w%w", err, quiet{backend.ErrOutOfReach}), hint}
	if passes {
		return &backend.TemporaryError{Err: err}
	}
	return err
}

var errSilent = errors.New("the program ended without an answer")

// connectHint says what to do about an error of ssh, and whether the error may pass by
// itself. line is the part of ssh's words that matters; "" for all. The texts are OpenSSH's,
// which has no translations.
func (b *Backend) connectHint(err error) (line, hint string, passes bool) {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", "install OpenSSH's client, or name another program with sftp.command", false
	}
	lines := strings.Split(err.Error(), "; ")
	for _, k := range []struct {
		text, hint string
		passes     bool
	}{
		{"has changed and you have requested", "the server was reinstalled, or somebody pretends to be it; if you know why, run \"ssh-keygen -R {host}\" and then \"{ssh}\"", false},
		{"Host key verification failed", "run \"{ssh}\" once, compare the fingerprint with that of the server, and accept it", false},
		{"No matching host key", "run \"{ssh}\" to see more", false},
		{"Permission denied", "\"{ssh}\" must log in without a password: put your key there with \"ssh-copy-id\", and load it into ssh-agent if it has a passphrase", false},
		{"Too many authentication failures", "choose one key with IdentityFile and IdentitiesOnly in ~/.ssh/config", false},
		{"subsystem request failed", "turn on SFTP on the server", false},
		{"Temporary failure in name resolution", "check the network of this computer", true},
		{"Could not resolve hostname", "check the name in the address", false},
		{"Connection refused", "check that the SSH server runs there, and its port", true},
		{"timed out", inReach, true},
		{"No route to host", inReach, true},
		{"is unreachable", inReach, true},
		{"Connection closed", "the server may be starting, or refuse connections of this computer for some time", true},
		{"Connection reset", "the server may be starting, or refuse connections of this computer for some time", true},
		{"closed by remote host", "the server may be starting, or refuse connections of this computer for some time", true},
		{"closed by UNKNOWN", "the server may be starting, or refuse connections of this computer for some time", true},
		{"Broken pipe", "", true},
	} {
		if at := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, k.text) }); at >= 0 {
			hint := strings.ReplaceAll(k.hint, "{ssh}", b.config.login("ssh", "-p"))
			return lines[at], strings.ReplaceAll(hint, "{host}", b.knownHost()), k.passes
		}
	}
	return "", "", false
}

const inReach = "check that the server is on, and in reach of this network"

// knownHost returns the host as known_hosts has it, in quotes if a shell needs them.
func (b *Backend) knownHost() string {
	if b.config.Port == 0 || b.config.Port == 22 {
		return b.config.Host
	}
	return fmt.Sprintf("'[%s]:%d'", b.config.Host, b.config.Port)
}

// The codes of SFTP's failures that this package distinguishes. Those above 8 are of later
// versions, and a few servers send them nevertheless.
const (
	codeFailure     = 4
	codeBadMessage  = 5 // OpenSSH sends it for EINVAL
	codeUnsupported = 8
	codeReadOnly    = 12
	codeNoSpace     = 14
	codeQuota       = 15
)

// code returns the code of a server's answer; 0 if err is none, or has an error of its own
// in package fs.
func code(err error) uint32 {
	if s, ok := errors.AsType[*sftp.StatusError](err); ok {
		return s.Code
	}
	return 0
}

// explain returns a better error for one that writing returned: servers of version 3 have
// no code for a full disk. need is how many bytes were to be written.
func (b *Backend) explain(c *conn, err error, need int) error {
	text := strings.ToLower(fmt.Sprint(err))
	switch code(err) {
	case 0:
		return err
	case codeNoSpace, codeQuota:
		return fmt.Errorf("%w (%w)", backend.ErrNoSpace, err)
	case codeReadOnly:
		return fmt.Errorf("%w (%w)", errReadOnly, err)
	}
	for _, s := range []string{"no space left", "quota exceeded", "not enough space", "disk full", "disk is full"} {
		if strings.Contains(text, s) {
			return fmt.Errorf("%w (%w)", backend.ErrNoSpace, err)
		}
	}
	if code(err) != codeFailure || !c.has(statvfsExtension) {
		return err
	}
	v, errStat := c.client.StatVFS(b.config.Path)
	switch {
	case errStat != nil:
		return err
	case v.Flag&1 != 0: // SSH_FXE_STATVFS_ST_RDONLY
		return fmt.Errorf("%w (%w)", errReadOnly, err)
	case v.Blocks > 0 && v.Bavail < uint64(need)/max(v.Frsize, 1)+1, v.Files > 0 && v.Favail == 0:
		return fmt.Errorf("%w (%w)", backend.ErrNoSpace, err)
	}
	return err
}

// errReadOnly says that the file system of the server is read-only. It is also
// fs.ErrPermission.
var errReadOnly error = &readOnly{}

type readOnly struct{}

func (*readOnly) Error() string { return "the disk of the server is read-only" }
func (*readOnly) Unwrap() error { return fs.ErrPermission }

// isMissing reports whether err says that a path does not exist. Some servers do not say
// that if a part of the path that should be a folder is a file; then above decides.
func (b *Backend) isMissing(c *conn, name string, err error) bool {
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if code(err) != codeFailure {
		return false
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if info, err := c.client.Stat(b.path(name[:i])); err == nil && !info.IsDir() {
			return true
		}
	}
	return false
}
