package backup2

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// maxArchived limits how many backups a device may archive in a session, by renaming
// or copying them. Devices archive one.
const maxArchived = 4

// scope says which paths a device may name in a session.
type scope struct {
	ids []string // identifiers of the request, which name folders
	// readOnly is set for a restore, which must not change the backup. The device
	// may only copy the backup to an archive.
	readOnly bool
	archived map[string]bool // folders that were archived in this session
}

func newScope(readOnly bool, ids ...string) *scope {
	return &scope{ids: ids, readOnly: readOnly, archived: map[string]bool{}}
}

// ownNames are the names in a device's folder that have a fixed meaning. A name that
// differs from one of these only in case is refused, since it would be the same file
// on some file systems.
var ownNames = [...]string{
	"Status.plist", "Info.plist", "Manifest.plist", "Manifest.db", "Manifest.mbdb", "Manifest.mbdx", "Snapshot",
}

var errPath = errors.New("the device may not use this path")

// checkRead returns an error if the device may not read path.
func (s *scope) checkRead(path string) error {
	first, err := s.clean(path)
	if err != nil || s.known(first) || s.archived[first] {
		return err
	}
	return fmt.Errorf("%w: it is not below the identifier of the device or backup", errPath)
}

// checkWrite returns an error if the device may not change path.
func (s *scope) checkWrite(path string) error {
	first, err := s.clean(path)
	switch {
	case err != nil:
		return err
	case s.archived[first]:
		return nil
	case !s.known(first):
		return fmt.Errorf("%w: it is not below the identifier of the device or backup", errPath)
	case s.readOnly:
		return fmt.Errorf("%w: a restore must not change the backup", errPath)
	}
	return nil
}

// checkTarget returns an error if path may not be the new name of a move or copy.
// Unlike checkWrite, it allows a path in an archive that does not exist yet.
func (s *scope) checkTarget(path string) error {
	first, err := s.clean(path)
	if err == nil && !s.archived[first] && s.isArchive(first) {
		if len(s.archived) >= maxArchived {
			return fmt.Errorf("%w: the device has archived %d folders already", errPath, maxArchived)
		}
		return nil
	}
	return s.checkWrite(path)
}

// addTarget records path as the new name of a move or copy, and reports whether it
// is in an archive.
func (s *scope) addTarget(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	if !s.isArchive(first) {
		return false
	}
	s.archived[first] = true
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

// isArchive reports whether name is an identifier followed by a date, such as
// "-20240131-123456".
func (s *scope) isArchive(name string) bool {
	for _, id := range s.ids {
		date, ok := strings.CutPrefix(name, id+"-")
		if ok && len(date) == 15 && date[8] == '-' && digits(date[:8]) && digits(date[9:]) {
			return true
		}
	}
	return false
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// clean returns the first element of path, and an error if path is not clean.
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
					return "", fmt.Errorf("%w: it differs from %s only in case", errPath, own)
				}
			}
		}
	}
	return first, nil
}

// checkIdentifier returns an error if id cannot be the identifier of a request: a
// device's UDID, or the name of its folder.
func checkIdentifier(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("device identifier %q: its length is not between 1 and 64 bytes", printable(id))
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return fmt.Errorf("device identifier %q: only letters, digits and dashes are allowed", printable(id))
		}
	}
	return nil
}
