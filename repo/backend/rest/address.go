package rest

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/repo/backend/wire"
)

// Config says where a repository is. [Parse] makes it.
type Config struct {
	Host string // host name or IP address, in lower case, and the port if one was given
	Path string // "/" or with a slash at both ends
	HTTP bool   // without TLS
	// User and Password are those of the address; mostly "". No message has them.
	User, Password Secret
}

// Secret is a text that is not shown.
type Secret string

// String hides the text.
func (Secret) String() string { return "not shown" }

// GoString hides the text.
func (s Secret) GoString() string { return s.String() }

const (
	scheme  = "rest:"
	form    = "write rest:https://HOST:PORT/PATH"
	maxPath = 800
)

// String returns the address without user and password.
func (c Config) String() string {
	return strings.TrimSuffix(scheme+c.base(), "/")
}

// base returns the URL that the names of files follow.
func (c Config) base() string {
	protocol := "https://"
	if c.HTTP {
		protocol = "http://"
	}
	path := (&url.URL{Path: c.Path}).EscapedPath()
	return protocol + c.Host + strings.ReplaceAll(path, "@", "%40")
}

// Parse returns what an address means. These are the forms:
//
//	rest:https://[USER:PASSWORD@]HOST[:PORT]/PATH
//	rest:http://[USER:PASSWORD@]HOST[:PORT]/PATH
//
// It is a URL: in the user, the password and the path, "%20" is a space. No error repeats
// an address that may have a password.
func Parse(address string) (Config, error) {
	rest, ok := strings.CutPrefix(address, scheme)
	if !ok {
		return Config{}, errors.New("the address of a server of repositories begins with rest: (" + form + ")")
	}
	protocol, rest, ok := strings.Cut(rest, "://")
	c := Config{HTTP: strings.EqualFold(protocol, "http")}
	if !ok || !c.HTTP && !strings.EqualFold(protocol, "https") {
		return Config{}, errors.New("the address of a server of repositories has neither https:// nor http:// after rest: (" + form + ")")
	}
	host, path, _ := strings.Cut(rest, "/")
	// Everything that may be a password comes first, so that no other error quotes it.
	if strings.Contains(path, "@") || strings.ContainsAny(rest, "?#") {
		return Config{}, errors.New(`an address has no "?" and "#", and "@" only after the user and password (write %40 for @, %2F for /, %3F for ? and %23 for #)`)
	}
	if at := strings.LastIndex(host, "@"); at >= 0 {
		if err := c.login(host[:at]); err != nil {
			return Config{}, err
		}
		host = host[at+1:]
	}
	c.Host = strings.ToLower(host)
	shown := fmt.Sprintf("%s%s://%s/%s", scheme, protocol, host, path)
	if why := wire.HostFault(c.Host); why != "" {
		return Config{}, refuse(shown, why)
	}
	if path = strings.TrimRight(path, "/"); path != "" {
		path += "/"
	}
	decoded, err := url.PathUnescape("/" + path)
	if err != nil {
		return Config{}, refuse(shown, `after "%" come two hex digits`)
	}
	if why := pathFault(decoded); why != "" {
		return Config{}, refuse(shown, why)
	}
	c.Path = decoded
	return c, nil
}

func (c *Config) login(text string) error {
	user, password, _ := strings.Cut(text, ":")
	user, errUser := url.PathUnescape(user)
	password, errPassword := url.PathUnescape(password)
	switch {
	case errUser != nil || errPassword != nil:
		return errors.New(`the user or password of the address has a "%" without two hex digits after it (write %25 for %)`)
	case user == "" || strings.Contains(user, ":"):
		return errors.New("the user of the address is empty or has a colon (write rest:https://USER:PASSWORD@HOST/PATH, or set SNAP_REST_USER and SNAP_REST_PASSWORD)")
	case strings.ContainsFunc(user+password, unicode.IsControl):
		return errors.New("the user or password of the address has a control character")
	}
	c.User, c.Password = Secret(user), Secret(password)
	return nil
}

func refuse(address, why string) error {
	return fmt.Errorf("%.200q is not the address of a server of repositories: %s (%s)", address, why, form)
}

// pathFault says what is wrong with a path; "" if nothing.
func pathFault(path string) string {
	switch {
	case len(path) > maxPath:
		return fmt.Sprintf("the path is longer than %d bytes", maxPath)
	case !utf8.ValidString(path):
		return "the path is not UTF-8"
	case strings.ContainsFunc(path, func(r rune) bool { return unicode.IsControl(r) || r == '\\' }):
		return `the path has a control character or \`
	case path == "/":
		return ""
	}
	for element := range strings.SplitSeq(path[1:len(path)-1], "/") {
		if element == "" || element == "." || element == ".." {
			return "the path has two slashes in a row, . or .."
		}
	}
	return ""
}

// Redact returns an address without its user and password. It works for each text: what
// cannot be the address of a server is returned as it is.
func Redact(address string) string {
	at := strings.LastIndex(address, "@")
	protocol, _, ok := strings.Cut(address, "://")
	if !ok || at < len(protocol) || !strings.HasPrefix(protocol, scheme) {
		return address
	}
	return protocol + "://" + address[at+1:]
}
