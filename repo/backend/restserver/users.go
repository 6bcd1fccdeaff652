package restserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	maxUsersFile = 1 << 20
	// maxCost bounds how long a check of a password takes: about 3 seconds.
	maxCost = 15
	// NewCost is the cost of the passwords that [SetPassword] stores. A check takes about
	// 0.2 s, and is then remembered.
	NewCost = 12
	// maxPassword is how many bytes of a password bcrypt uses.
	maxPassword = 72
)

var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Users are the users of an htpasswd file and their passwords. The file is read again when it
// changes.
type Users struct {
	path  string
	warn  func(error)
	slots chan struct{} // limits how many passwords are checked at a time

	mu    sync.Mutex
	stamp stamp
	said  string              // the last warning
	list  map[string][]byte   // bcrypt hash by name
	known map[string][32]byte // the last password that was right, keyed and hashed, by name
	key   [32]byte            // of known
	decoy []byte              // is compared with the passwords of unknown users
}

// stamp tells versions of a file apart.
type stamp struct {
	size     int64
	modified time.Time
}

// OpenUsers reads an htpasswd file. warn is called if the file cannot be used later; the
// users that it had then stay.
func OpenUsers(path string, warn func(error)) (*Users, error) {
	u := &Users{path: path, warn: warn, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), known: map[string][32]byte{}}
	_, _ = rand.Read(u.key[:]) // never fails
	return u, u.read()
}

// read reads the file if it has changed. The caller holds u.mu, or is the only one who knows u.
func (u *Users) read() error {
	info, err := os.Stat(u.path)
	if err != nil {
		return err
	}
	now := stamp{info.Size(), info.ModTime()}
	if now == u.stamp {
		return nil
	}
	u.stamp = now // a file with mistakes is not read again until it changes
	if info.Size() > maxUsersFile {
		return fmt.Errorf("%s has %d bytes: not a file of users", u.path, info.Size())
	}
	b, err := os.ReadFile(u.path)
	if err != nil {
		return err
	}
	list, err := parseUsers(b)
	if err != nil {
		return fmt.Errorf("%s: %w", u.path, err)
	}
	u.list, u.said = list, ""
	cost := bcrypt.MinCost
	for _, hash := range list {
		if c, err := bcrypt.Cost(hash); err == nil {
			cost = max(cost, c)
		}
	}
	u.decoy, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), cost)
	return err
}

// WithoutFolder returns the users whose names no folder can have, in order. They can do
// nothing if each user has a folder.
func (u *Users) WithoutFolder() (names []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name := range u.list {
		if t, err := parsePath("/"+name+"/", true); err != nil || t.base != name {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// find returns the hash of a user, or the decoy.
func (u *Users) find(name string) (hash []byte, exists bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.read(); err != nil && err.Error() != u.said {
		u.said = err.Error()
		u.warn(fmt.Errorf("the users stay as they were: %w", err))
	}
	if hash, exists = u.list[name]; exists {
		return hash, true
	}
	return u.decoy, false
}

// digest returns what is remembered of a password that was right. The hash is a part of it,
// so a changed password is checked anew.
func (u *Users) digest(name, password string, hash []byte) (d [32]byte) {
	m := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(m, "%q %q %q", name, password, hash)
	m.Sum(d[:0])
	return d
}

// isKnown reports whether this password was right before, which takes no time.
func (u *Users) isKnown(name, password string) bool {
	hash, exists := u.find(name)
	d := u.digest(name, password, hash)
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.known[name]
	return hmac.Equal(last[:], d[:]) && exists
}

// check reports whether a password is right. It takes equally long for users that do not
// exist.
func (u *Users) check(ctx context.Context, name, password string) (bool, error) {
	hash, exists := u.find(name)
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if u.isKnown(name, password) {
		return true, nil // another connection of the same client was faster
	}
	right := bcrypt.CompareHashAndPassword(hash, []byte(password[:min(len(password), maxPassword)])) == nil
	if !right || !exists || len(password) > maxPassword {
		return false, nil
	}
	d := u.digest(name, password, hash)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known[name] = d
	return true, nil
}

// parseUsers parses an htpasswd file. Errors name the line and the user, never the hash.
func parseUsers(b []byte) (map[string][]byte, error) {
	list := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("line %d: want NAME:HASH", n)
		}
		if err := CheckUserName(name); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if list[name] != nil {
			return nil, fmt.Errorf("line %d: the user %s is there twice", n, name)
		}
		if err := checkHash(hash); err != nil {
			return nil, fmt.Errorf("line %d: the password of %s %w", n, name, err)
		}
		list[name] = []byte(hash)
	}
	return list, lines.Err()
}

// CheckUserName returns an error if a user cannot have this name.
func CheckUserName(name string) error {
	if !userName.MatchString(name) {
		return fmt.Errorf("%.100q is not a name of a user: it begins with a letter or digit, and has letters, digits and . _ @ -", name)
	}
	return nil
}

// checkHash returns an error, which continues a sentence, if a hash is not one of bcrypt.
func checkHash(hash string) error {
	for prefix, what := range map[string]string{
		"$apr1$": "MD5", "$1$": "MD5", "{SHA}": "SHA-1", "$5$": "SHA-256", "$6$": "SHA-512", "$argon2": "Argon2", "$y$": "yescrypt",
	} {
		if strings.HasPrefix(hash, prefix) {
			return fmt.Errorf("is stored with %s; only bcrypt is accepted: store it anew with \"snap serve user add\" or \"htpasswd -B\"", what)
		}
	}
	if !regexp.MustCompile(`^\$2[aby]\$[0-9][0-9]\$[./A-Za-z0-9]{53}$`).MatchString(hash) {
		return errors.New("is not a hash of bcrypt: store it anew with \"snap serve user add\" or \"htpasswd -B\"")
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || cost > maxCost {
		return fmt.Errorf("has a cost that is not from %d to %d", bcrypt.MinCost, maxCost)
	}
	return nil
}

// SetPassword returns the text of an htpasswd file in which a user has a password. Other
// lines stay as they are.
func SetPassword(file []byte, name, password string, cost int) (out []byte, replaced bool, err error) {
	if len(password) > maxPassword {
		return nil, false, fmt.Errorf("the password has %d bytes, and bcrypt uses only %d", len(password), maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return nil, false, err
	}
	out, replaced = RemoveUser(file, name)
	return append(out, name+":"+string(hash)+"\n"...), replaced, nil
}

// RemoveUser returns the text of an htpasswd file without a user.
func RemoveUser(file []byte, name string) (out []byte, existed bool) {
	for line := range bytes.Lines(file) {
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte(name+":")) {
			existed = true
			continue
		}
		out = append(out, line...)
		if !bytes.HasSuffix(line, []byte("\n")) {
			out = append(out, '\n')
		}
	}
	return out, existed
}

// EditUsers changes an htpasswd file, which need not exist. The new file appears complete, with
// the mode and, if this process may give files away, the owner of the old one: a server may
// run as another user. A file that is new can be read by its owner only.
func EditUsers(path string, edit func(old []byte) ([]byte, error)) error {
	old, err := os.ReadFile(path)
	var info os.FileInfo
	if err == nil {
		info, err = os.Stat(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	text, err := edit(old)
	if err != nil {
		return err
	}
	temp, err := writeTemp(filepath.Dir(path), text, info)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// writeTemp writes a temporary file in a folder, and flushes it. It has the mode and owner of
// like, if that is not nil.
func writeTemp(dir string, text []byte, like os.FileInfo) (string, error) {
	f, err := os.CreateTemp(dir, ".snap-serve-*") // has mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil && like != nil {
		giveAway(f, like)
		err = f.Chmod(like.Mode().Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
