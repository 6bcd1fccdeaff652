package backend

import (
	"fmt"
	"strings"
)

// MaxNameLength is the maximum length of a file name, in bytes. The longest name
// in a repository, "packs/ab/" and 64 hex digits, has 73.
const MaxNameLength = 200

// ValidName returns nil if name is a valid file name. Otherwise it returns an error
// that is [ErrInvalidName] and says why.
//
// A name is a relative path of elements joined by single slashes. An element
// consists of a-z, 0-9, ".", "_" and "-", begins with a letter or digit, does not
// end with ".", and is not a device name of Windows ("con", "nul.txt"). So a name
// means the same file on every system, is never hidden, and never refers to a file
// outside the store. Names of the files that macOS creates on other disks
// ("._name", ".DS_Store") are not valid.
//
// "tmp" and names below it are reserved for implementations.
func ValidName(name string) error {
	if len(name) > MaxNameLength {
		return fmt.Errorf("%.40q...: longer than %d bytes: %w", name, MaxNameLength, ErrInvalidName)
	}
	first, _, _ := strings.Cut(name, "/")
	if first == "tmp" {
		return fmt.Errorf("%q: reserved for temporary files: %w", name, ErrInvalidName)
	}
	for element := range strings.SplitSeq(name, "/") {
		if why := elementFault(element); why != "" {
			return fmt.Errorf("%q: %s: %w", name, why, ErrInvalidName)
		}
	}
	return nil
}

// ValidPrefix returns nil if prefix may be given to [Backend.List]: "" or a
// valid name followed by a slash. Otherwise its error is [ErrInvalidName].
func ValidPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	folder, ok := strings.CutSuffix(prefix, "/")
	if !ok {
		return fmt.Errorf("prefix %.40q: does not end with a slash: %w", prefix, ErrInvalidName)
	}
	return ValidName(folder)
}

// elementFault says what is wrong with one element of a name; "" if it is valid.
func elementFault(element string) string {
	if element == "" {
		return "empty path element"
	}
	for i := range len(element) {
		switch c := element[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '.' || c == '_' || c == '-':
			if i == 0 {
				return "path element does not begin with a letter or digit"
			}
		default:
			return "only a-z, 0-9, '.', '_' and '-' are allowed"
		}
	}
	if element[len(element)-1] == '.' {
		return "path element ends with a dot"
	}
	if isWindowsDevice(element) {
		return "path element is a device name on Windows"
	}
	return ""
}

// isWindowsDevice reports whether Windows opens a device instead of a file of this
// name. The extension of the name does not matter.
func isWindowsDevice(element string) bool {
	base, _, _ := strings.Cut(element, ".")
	switch base {
	case "con", "prn", "aux", "nul":
		return true
	}
	if len(base) == 4 && (strings.HasPrefix(base, "com") || strings.HasPrefix(base, "lpt")) {
		return '0' <= base[3] && base[3] <= '9'
	}
	return false
}

// IsHashed reports whether the last element of a name is 64 lower-case hex digits. Files
// that are named by their hash have such names.
func IsHashed(name string) bool {
	last := name[strings.LastIndexByte(name, '/')+1:]
	return len(last) == 64 && strings.Trim(last, "0123456789abcdef") == ""
}

// IsSystemEntry reports whether operating systems create files or folders of this name in
// a folder that people consider empty. No repository has a file of such a name.
func IsSystemEntry(name string) bool {
	if strings.HasPrefix(name, ".") {
		return true
	}
	switch strings.ToLower(name) {
	case "lost+found", "system volume information", "$recycle.bin", "desktop.ini", "thumbs.db":
		return true
	}
	return false
}
