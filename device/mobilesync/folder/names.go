package folder

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName = 255  // bytes; the limit of APFS and ext4. NTFS counts UTF-16 units, so it allows at least as much
	maxPath = 1023 // bytes; macOS' PATH_MAX without the final NUL
)

// NameError names a path that cannot be created safely on every system that
// snap runs on.
type NameError struct {
	Path   string
	Reason string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("unsafe name %q: %s", e.Path, e.Reason)
}

// CheckPath returns a *NameError if a slash-separated relative path cannot be
// created safely, and under the same name, on Linux, macOS and Windows. It
// refuses
//
//   - the empty path, absolute paths, empty components, "." and "..";
//   - NUL and all other control characters, invalid UTF-8;
//   - backslash, colon and < > " | ? *: Windows takes them for separators or
//     for the start of a stream's name, or refuses them;
//   - a component that ends in a dot or a space, which Windows drops;
//   - device names of Windows (CON, NUL, COM1, "aux.txt" ...);
//   - components over 255 bytes and paths over 1,023 bytes.
//
// It accepts everything else: leading dots, upper case, any other Unicode in
// any normal form. It also accepts names that differ only in case or normal
// form: whether they collide depends on the file system of the target, so code
// that creates files must not overwrite any.
//
// Apple's own names (hexadecimal digits and a few fixed names) always pass.
func CheckPath(path string) error {
	bad := func(format string, args ...any) error {
		return &NameError{Path: path, Reason: fmt.Sprintf(format, args...)}
	}
	if path == "" {
		return bad("it is empty")
	}
	if len(path) > maxPath {
		return bad("longer than %d bytes", maxPath)
	}
	for name := range strings.SplitSeq(path, "/") {
		if isHex(name) && len(name) <= maxName && name != "" {
			continue
		}
		if reason := nameFault(name); reason != "" {
			return bad("%s", reason)
		}
	}
	return nil
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// nameFault returns why one component is refused, or "".
func nameFault(name string) string {
	switch {
	case name == "":
		return "it has an empty component"
	case name == "." || name == "..":
		return fmt.Sprintf("it has the component %q", name)
	case len(name) > maxName:
		return fmt.Sprintf("a component is longer than %d bytes", maxName)
	case !utf8.ValidString(name):
		return "it is not valid UTF-8"
	case name[len(name)-1] == '.' || name[len(name)-1] == ' ':
		return "a component ends in a dot or a space"
	case reserved(name):
		return "Windows reserves this name for a device"
	}
	for _, c := range name {
		switch {
		case unicode.IsControl(c):
			return fmt.Sprintf("it contains the control character %U", c)
		case strings.ContainsRune(`\:<>"|?*`, c):
			return fmt.Sprintf("it contains %q", c)
		}
	}
	return ""
}

// reserved reports whether Windows reserves name for a device. Most versions
// also reserve it with any extension, and with spaces before the extension.
func reserved(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	for _, port := range []string{"COM", "LPT"} {
		if digit, ok := strings.CutPrefix(base, port); ok {
			switch digit {
			case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
				return true
			}
		}
	}
	return false
}
