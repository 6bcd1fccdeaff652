package rclone

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Config says where a repository is. [Parse] makes it.
type Config struct {
	Remote string // of rclone's configuration, such as "drive", or ":local"
	Path   string // clean, may be ""
}

const (
	scheme  = "rclone:"
	form    = "write rclone:REMOTE:PATH"
	maxPath = 800
)

// remoteName fits the names that rclone gives remotes, and ":BACKEND" for one without
// settings. It does not begin with a hyphen, so that it is no flag.
var remoteName = regexp.MustCompile(`^:?[\p{L}\p{N}_.+@][\p{L}\p{N}_.+@ -]*$`)

// Parse returns what an address means. Its form is
//
//	rclone:REMOTE:PATH
//
// Settings of rclone's connection strings (REMOTE,KEY=VALUE:PATH) are refused, and the error
// does not repeat them: they can be passwords.
func Parse(address string) (Config, error) {
	rest, ok := strings.CutPrefix(address, scheme)
	if !ok {
		return Config{}, errors.New("the address of a remote of rclone begins with rclone: (" + form + ")")
	}
	backend, named := strings.CutPrefix(rest, ":")
	remote, folder, ok := strings.Cut(backend, ":")
	if named {
		remote = ":" + remote
	}
	switch {
	case strings.ContainsAny(remote, `,="'`):
		return Config{}, errors.New("the address of a remote has settings, which can be passwords: put them into rclone's configuration (" + form + ")")
	case !ok:
		return Config{}, errors.New("the address has no colon after the name of the remote (" + form + `; "rclone listremotes" shows the names)`)
	case !remoteName.MatchString(remote) || strings.HasSuffix(remote, " "):
		return Config{}, fmt.Errorf("%.60q is not the name of a remote of rclone (%s)", remote, form)
	case len(folder) > maxPath:
		return Config{}, fmt.Errorf("the path is longer than %d bytes", maxPath)
	case !utf8.ValidString(folder) || strings.ContainsFunc(folder, unicode.IsControl):
		return Config{}, errors.New("the path has control characters, or is not UTF-8")
	}
	if folder != "" {
		folder = path.Clean(folder)
	}
	if folder == "." {
		folder = ""
	}
	if folder == ".." || strings.HasPrefix(folder, "../") {
		return Config{}, errors.New("the path leads out of the remote (" + form + ")")
	}
	return Config{Remote: remote, Path: folder}, nil
}

// String returns the address.
func (c Config) String() string { return scheme + c.remote() }

// remote returns the remote and path as rclone takes them.
func (c Config) remote() string { return c.Remote + ":" + c.Path }
