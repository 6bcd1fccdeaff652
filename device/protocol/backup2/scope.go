package backup2

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// maxAside bounds how many backups a device may put aside in one session.
// Devices put aside one.
const maxAside = 4

// scope is what a device may name in one session.
type scope struct {
	ids []string // the request's identifiers, the folders that exist
	// readOnly is a restore, which changes nothing of the backup: it may only
	// make a copy of it aside.
	readOnly bool
	aside    map[string]bool // folders that were put aside in this session
}

func newScope(readOnly bool, ids ...string) *scope {
	return &scope{ids: ids, readOnly: readOnly, aside: map[string]bool{}}
}

// ownNames are the names in a device's folder that mean something. A file
// system that ignores case would take others for them.
var ownNames = [...]string{
	"Status.plist", "Info.plist", "Manifest.plist", "Manifest.db", "Manifest.mbdb", "Manifest.mbdx", "Snapshot",
}

var errPath = errors.New("the device names a path that is not its own")

// read reports whether the device may look at path.
func (s *scope) read(path string) error {
	first, err := s.clean(path)
	if err != nil || s.known(first) || s.aside[first] {
		return err
	}
	return fmt.Errorf("%w: it is not below its identifier", errPath)
}

// write reports whether the device may change what is at path.
func (s *scope) write(path string) error {
	first, err := s.clean(path)
	switch {
	case err != nil:
		return err
	case s.aside[first]:
		return nil
	case !s.known(first):
		return fmt.Errorf("%w: it is not below its identifier", errPath)
	case s.readOnly:
		return fmt.Errorf("%w: a restore changes nothing of the backup", errPath)
	}
	return nil
}

// target is write for the new name of a move or copy, which may begin with
// that of a folder put aside.
func (s *scope) target(path string) error {
	first, err := s.clean(path)
	if err == nil && !s.aside[first] && s.isAside(first) {
		if len(s.aside) >= maxAside {
			return fmt.Errorf("%w: it has put aside %d folders already", errPath, maxAside)
		}
		return nil
	}
	return s.write(path)
}

// done notes that something was moved or copied to path, and reports whether
// that is a folder put aside.
func (s *scope) done(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	if !s.isAside(first) {
		return false
	}
	s.aside[first] = true
	return true
}

func (s *scope) known(first string) bool {
	for _, id := range s.ids {
		if first == id {
			return true
		}
	}
	return false
}

// isAside reports whether name is an identifier and a date as in
// "-20240131-123456".
func (s *scope) isAside(name string) bool {
	for _, id := range s.ids {
		date, ok := strings.CutPrefix(name, id+"-")
		if ok && len(date) == 15 && date[8] == '-' && digits(date[:8]) && digits(date[9:]) {
			return true
		}
	}
	return false
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// clean returns the first element of a path that has no tricks in it.
func (s *scope) clean(path string) (first string, err error) {
	switch {
	case path == "" || len(path) > devicelink.MaxName:
		return "", fmt.Errorf("%w: it has %d bytes", errPath, len(path))
	case !utf8.ValidString(path):
		return "", fmt.Errorf("%w: it is not UTF-8", errPath)
	case strings.ContainsAny(path, "\\\x00"):
		return "", fmt.Errorf("%w: it has a backslash or a NUL", errPath)
	}
	for i, element := range strings.Split(path, "/") {
		switch element {
		case "", ".", "..":
			return "", fmt.Errorf("%w: it has an element %q", errPath, element)
		}
		switch i {
		case 0:
			first = element
		case 1:
			for _, own := range ownNames {
				if element != own && strings.EqualFold(element, own) {
					return "", fmt.Errorf("%w: it could be taken for %s", errPath, own)
				}
			}
		}
	}
	return first, nil
}

// checkIdentifier reports whether id can be the identifier of a request: a
// device's UDID, or the name that its folder has.
func checkIdentifier(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("device identifier %q: not between 1 and 64 bytes long", printable(id))
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return fmt.Errorf("device identifier %q: only letters, digits and dashes can be in it", printable(id))
		}
	}
	return nil
}
