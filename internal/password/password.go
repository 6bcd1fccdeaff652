// Package password treats passwords as text, not as bytes.
//
// People type the same password on different systems, and programs write it into
// files with different encodings. Unicode has several forms of the same text: ä is
// one character on most keyboards, and an a with a combining mark on others. So
// new passwords are used in the form NFC, and those that open something are tried
// in several forms. Key files are not passwords: their bytes are never changed.
package password

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// ErrNotText says that something is not a password, since nobody can type it.
var ErrNotText = errors.New("it is not text")

// Byte order marks, with which Windows programs begin files.
var (
	markUTF8    = []byte{0xef, 0xbb, 0xbf}
	markUTF16LE = []byte{0xff, 0xfe}
	markUTF16BE = []byte{0xfe, 0xff}
)

// FirstLine returns the first line of a file, in UTF-8, without its end. A byte order
// mark is dropped, and UTF-16 with such a mark is decoded. The error is ErrNotText if
// the line has a NUL byte or its UTF-16 is invalid. Other bytes that are not UTF-8 are
// returned as they are, since a password may have been made with them.
func FirstLine(file []byte) ([]byte, error) {
	text, err := decode(file)
	if err != nil {
		return nil, err
	}
	return withoutNUL(CutLine(text))
}

// Text returns a password that was given as a whole, such as the value of a variable,
// in UTF-8. It treats byte order marks and NUL bytes as FirstLine does.
func Text(value []byte) ([]byte, error) {
	text, err := decode(value)
	if err != nil {
		return nil, err
	}
	return withoutNUL(text)
}

// CutLine returns the bytes before the first end of a line.
func CutLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// IsUTF16 reports whether bytes begin with a byte order mark of UTF-16.
func IsUTF16(b []byte) bool {
	return bytes.HasPrefix(b, markUTF16LE) || bytes.HasPrefix(b, markUTF16BE)
}

func withoutNUL(b []byte) ([]byte, error) {
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, fmt.Errorf("%w: it has a NUL byte", ErrNotText)
	}
	return b, nil
}

func decode(b []byte) ([]byte, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, markUTF16LE):
		order = binary.LittleEndian
	case bytes.HasPrefix(b, markUTF16BE):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(b, markUTF8), nil
	}
	b = b[len(markUTF16LE):]
	if len(b)%2 != 0 {
		return nil, fmt.Errorf("%w: its UTF-16 has an odd number of bytes", ErrNotText)
	}
	units := make([]uint16, len(b)/2)
	defer clear(units)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	text := utf16.Decode(units)
	defer clear(text)
	if slices.Contains(text, unicode.ReplacementChar) {
		return nil, fmt.Errorf("%w: its UTF-16 is invalid", ErrNotText)
	}
	out := make([]byte, 0, 3*len(units)) // enough, so that no copy of the password is left
	for _, r := range text {
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}

// CheckNew returns an error if a new password must not be used: if it is not UTF-8, or
// if it has control characters. Tabs are allowed. The other control characters cannot
// be given later, neither by a keyboard nor by a file.
func CheckNew(password []byte) error {
	if !utf8.Valid(password) {
		return fmt.Errorf("%w: it is not valid UTF-8", ErrNotText)
	}
	if bytes.ContainsFunc(password, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
		return fmt.Errorf("%w: it has a control character, such as the end of a line", ErrNotText)
	}
	return nil
}

// IsTypable reports whether a keyboard can give a password: it could be a new password,
// and does not begin with a byte order mark. Passwords that are given in another way lose
// this mark.
func IsTypable(password []byte) bool {
	return CheckNew(password) == nil && !bytes.HasPrefix(password, markUTF8)
}

// Normal returns the form in which a new password is used: NFC. Bytes that are not
// UTF-8 stay as they are. The result is always a copy.
func Normal(password []byte) []byte {
	if !utf8.Valid(password) {
		return bytes.Clone(password)
	}
	return norm.NFC.Append(nil, password...)
}

// Forms returns the forms in which to try a password: as it is, in NFC and in NFD,
// without duplicates. A password of ASCII has one form. The first form is the
// argument itself; the caller clears the others.
func Forms(password []byte) [][]byte {
	forms := [][]byte{password}
	if !utf8.Valid(password) {
		return forms
	}
	for _, f := range []norm.Form{norm.NFC, norm.NFD} {
		form := f.Append(nil, password...)
		if !slices.ContainsFunc(forms, func(other []byte) bool { return bytes.Equal(form, other) }) {
			forms = append(forms, form)
		}
	}
	return forms
}

// Clear clears the copies that Forms made.
func Clear(forms [][]byte) {
	for _, f := range forms[min(1, len(forms)):] {
		clear(f)
	}
}
