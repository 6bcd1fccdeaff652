package sftp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// Config says where a repository is on which server.
type Config struct {
	User string // "" for the user of ssh's configuration
	Host string // a name, an address, or an alias of ssh's configuration
	Port int    // 0 for the port of ssh's configuration
	Path string // clean; relative paths begin at the user's home folder
}

const scheme = "sftp:"

// forms is what errors about addresses end with.
const forms = "expected sftp:USER@HOST:/FOLDER, sftp:HOST:PORT:/FOLDER or sftp://USER@HOST:PORT//FOLDER"

// ErrAddress says that an address is not valid.
var ErrAddress = errors.New("not a valid SFTP address")

// Parse reads the address of a repository, in one of these forms:
//
//	sftp:[USER@]HOST:/FOLDER           an absolute path
//	sftp:[USER@]HOST:FOLDER            relative to the user's home folder
//	sftp:[USER@]HOST:PORT:/FOLDER
//	sftp://[USER@]HOST[:PORT]//FOLDER  an absolute path
//	sftp://[USER@]HOST[:PORT]/FOLDER   relative to the user's home folder
//
// The last form has the meaning that it has in restic: the first slash ends the host. In a
// URL, "%20" is a space. IPv6 addresses are in brackets.
//
// The error is [ErrAddress]. It never shows a password.
func Parse(address string) (Config, error) {
	c, err := parse(address)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	return c, nil
}

func parse(address string) (Config, error) {
	rest, ok := strings.CutPrefix(address, scheme)
	if !ok {
		return Config{}, fmt.Errorf("it does not begin with %q; %s", scheme, forms)
	}
	if strings.HasPrefix(rest, "//") {
		return parseURL(address)
	}
	if hasPassword.MatchString(rest) {
		return Config{}, errPassword
	}
	login, folder, ok := cutHost(rest)
	if !ok {
		return Config{}, fmt.Errorf("it has no colon after the host; %s", forms)
	}
	c := Config{Path: folder}
	c.User, c.Host = cutUser(login)
	if strings.HasSuffix(login, "]") {
		c.Host = strings.TrimSuffix(strings.TrimPrefix(c.Host, "["), "]")
	}
	if strings.HasPrefix(login, "@") {
		return Config{}, fmt.Errorf("the user before @ is empty; %s", forms)
	}
	if port, folder, ok := strings.Cut(c.Path, ":"); ok && isNumber(port) && strings.HasPrefix(folder, "/") {
		var err error
		if c.Port, err = parsePort(port); err != nil {
			return Config{}, err
		}
		c.Path = folder
	}
	return c.checked()
}

// hasPassword matches USER:PASSWORD@HOST:PATH. It also matches a few relative paths, which
// can be written as a URL.
var hasPassword = regexp.MustCompile(`^[^/:@\[]*:([^/].*)?@.*:`)

var errPassword = errors.New("an address must not have a password: other users of this computer would see it; " +
	"leave it out, and ssh uses your keys or asks")

// cutHost divides USER@HOST:PATH at the first colon that is not part of an IPv6 address.
func cutHost(s string) (login, folder string, ok bool) {
	start := 0
	if at := strings.Index(s, "["); at >= 0 && (at == 0 || s[at-1] == '@') && !strings.ContainsAny(s[:at], ":/") {
		end := strings.Index(s, "]")
		if end < at {
			return "", "", false
		}
		start = end
	}
	colon := strings.Index(s[start:], ":")
	if colon < 0 {
		return "", "", false
	}
	return s[:start+colon], s[start+colon+1:], true
}

// cutUser divides USER@HOST. The user may have an @, the host may not.
func cutUser(login string) (user, host string) {
	if at := strings.LastIndex(login, "@"); at >= 0 {
		return login[:at], login[at+1:]
	}
	return "", login
}

func parseURL(address string) (Config, error) {
	u, err := url.Parse(address)
	if err != nil {
		// The error of package url shows the address, which may have a password.
		return Config{}, fmt.Errorf("it is not a URL; %s", forms)
	}
	if _, ok := u.User.Password(); ok {
		return Config{}, errPassword
	}
	if u.RawQuery != "" || u.ForceQuery || strings.Contains(address, "#") {
		return Config{}, fmt.Errorf(`"?" and "#" end the path of a URL; write %%3F and %%23, or use sftp:HOST:/FOLDER`)
	}
	if u.User != nil && u.User.Username() == "" {
		return Config{}, fmt.Errorf("the user before @ is empty; %s", forms)
	}
	c := Config{User: u.User.Username(), Host: u.Hostname(), Path: strings.TrimPrefix(u.Path, "/")}
	if strings.HasSuffix(u.Host, ":") {
		return Config{}, fmt.Errorf("the port is empty; %s", forms)
	}
	if port := u.Port(); port != "" {
		if c.Port, err = parsePort(port); err != nil {
			return Config{}, err
		}
	}
	return c.checked()
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func parsePort(s string) (int, error) {
	port, err := strconv.Atoi(s)
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("port %.20q is not a number from 1 to 65535", s)
	}
	return port, nil
}

// checked returns c with a clean path. ssh's configuration can give users and hosts to a
// shell (ProxyCommand, Match exec), and ssh takes what begins with "-" for an option. So
// only harmless characters are allowed.
func (c Config) checked() (Config, error) {
	if !isHost(c.Host) {
		return Config{}, fmt.Errorf("host %.60q: expected a name of letters, digits, dots, hyphens and underscores that does not begin with a hyphen, or an IP address", c.Host)
	}
	if strings.HasPrefix(c.User, "-") || strings.HasSuffix(c.User, `\`) || strings.ContainsAny(c.User, "'`\"$;&<>|(){}:/") || strings.ContainsFunc(c.User, isOdd) {
		return Config{}, fmt.Errorf("user %.60q has characters that ssh does not allow", c.User)
	}
	switch {
	case c.Path == "":
		return Config{}, fmt.Errorf("it has no folder; %s", forms)
	case strings.ContainsFunc(c.Path, unicode.IsControl):
		return Config{}, errors.New("the folder has control characters")
	case c.Path == "~" || strings.HasPrefix(c.Path, "~/"):
		return Config{}, errors.New(`servers do not expand "~"; leave "~/" out: a path without a slash at its beginning starts at the home folder`)
	}
	c.Path = path.Clean(c.Path)
	return c, nil
}

func isOdd(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_.+][A-Za-z0-9_.+-]*$`)

func isHost(s string) bool {
	if hostName.MatchString(s) {
		return true
	}
	addr, err := netip.ParseAddr(s)
	return err == nil && (addr.Zone() == "" || hostName.MatchString(addr.Zone()))
}

// String returns the address in the shortest form that Parse accepts.
func (c Config) String() string {
	host := c.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	user := ""
	if c.User != "" {
		user = c.User + "@"
	}
	if c.Port == 0 {
		if s := scheme + user + host + ":" + c.Path; isSame(s, c) {
			return s
		}
	}
	u := url.URL{Scheme: "sftp", Host: host, Path: "/" + c.Path}
	if c.User != "" {
		u.User = url.User(c.User)
	}
	if c.Port != 0 {
		u.Host = net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	}
	return u.String()
}

func isSame(address string, c Config) bool {
	again, err := parse(address)
	return err == nil && again == c
}

// login returns the command by which a person tries to log in, with ssh or sftp.
func (c Config) login(program, portFlag string) string {
	s := program + " "
	if c.Port != 0 {
		s += fmt.Sprintf("%s %d ", portFlag, c.Port)
	}
	if c.User != "" {
		s += c.User + "@"
	}
	return s + c.Host
}
