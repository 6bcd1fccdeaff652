package plist

import (
	"bytes"
	"errors"
	"strings"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

// ErrForm says that a property list has a form that Apple's programs read and this package
// does not: another encoding than UTF-8, or a document type with its own declarations.
var ErrForm = errors.New("a form of property lists that is not supported")

// Check reads all of a binary or XML property list, and returns an error if it is not
// valid, or ErrForm if that cannot be told. It accepts what Decode does not, such as keyed
// archives. It needs no memory beyond b.
func Check(b []byte) error {
	if bplist.Is(b) {
		_, err := parseBinary(b)
		return err
	}
	if otherForm(b) {
		return ErrForm
	}
	s := newXMLScanner(b, maxSkippedDepth)
	s.ignoreTail = true // as Apple's programs do
	for {
		token, err := s.next()
		if err != nil {
			return err
		}
		switch token.kind {
		case tokenEnd:
			return nil
		case tokenKey:
			_, err = xmlText(token.raw)
		case tokenScalar:
			err = s.check(token)
		}
		if err != nil {
			return err
		}
	}
}

// otherForm reports whether the beginning of an XML file is that of a form for ErrForm.
func otherForm(b []byte) bool {
	head := b[:min(len(b), 1024)]
	if rest, ok := bytes.CutPrefix(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n"), []byte("<?xml")); ok {
		declaration, _, _ := bytes.Cut(rest, []byte("?>"))
		_, value, _ := strings.Cut(string(declaration), "encoding")
		if parts := strings.FieldsFunc(value, func(r rune) bool { return r == '"' || r == '\'' }); len(parts) > 1 && !knownEncoding(parts[1]) {
			return true
		}
	}
	_, doctype, _ := bytes.Cut(head, []byte("<!DOCTYPE"))
	doctype, _, _ = bytes.Cut(doctype, []byte(">"))
	return bytes.IndexByte(doctype, '[') >= 0
}

func knownEncoding(name string) bool {
	return strings.EqualFold(name, "UTF-8") || strings.EqualFold(name, "US-ASCII") || strings.EqualFold(name, "ASCII")
}

func (s *xmlScanner) check(token xmlToken) error {
	text, err := xmlText(token.raw)
	if err != nil {
		return err
	}
	if _, ok := xmlScalar(token.element, text); !ok {
		return s.bad("invalid <%s>", token.element)
	}
	return nil
}

// Looks reports whether a file that begins with head is meant to be a property list:
// a binary one, or an XML file with the root or the document type of one.
func Looks(head []byte) bool {
	if bytes.HasPrefix(head, []byte("bplist00")) {
		return true
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	if bytes.HasPrefix(text, []byte("<plist")) || bytes.HasPrefix(text, []byte("<!DOCTYPE plist")) {
		return true
	}
	return bytes.HasPrefix(text, []byte("<?xml")) && (bytes.Contains(text, []byte("<!DOCTYPE plist")) || bytes.Contains(text, []byte("<plist")))
}
