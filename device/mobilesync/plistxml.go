package mobilesync

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDepth bounds how deep the containers of an XML property list may nest.
const maxDepth = 512

// readXMLPlist scans an XML property list once. It is a scanner of its own
// because an Info.plist is up to 10 MB of icons in base64, of which nothing is
// wanted: jumping from tag to tag costs milliseconds where a general XML
// decoder needs most of a second. It refuses document type declarations with
// an internal subset, so there are no entities but the five of XML itself.
func readXMLPlist(data []byte, wanted []string) (values, error) {
	s := xmlScanner{in: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), wanted: wanted, out: values{}}
	if err := s.scan(); err != nil {
		return nil, err
	}
	return s.out, nil
}

// container is one open dict or array.
type container struct {
	dict bool
	key  string // last key seen in a dict, for its value
	set  bool   // key holds a key that has had no value yet
}

type xmlScanner struct {
	in     []byte
	pos    int
	wanted []string
	stack  []container
	out    values
}

func (s *xmlScanner) bad(format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", errPlist, s.pos, fmt.Sprintf(format, args...))
}

func (s *xmlScanner) scan() error {
	var opened, closed, root bool
	for {
		at := bytes.IndexByte(s.in[s.pos:], '<')
		if at < 0 {
			at = len(s.in) - s.pos
		}
		if len(bytes.TrimSpace(s.in[s.pos:s.pos+at])) != 0 {
			return s.bad("text outside of a value")
		}
		s.pos += at
		if s.pos == len(s.in) {
			break
		}
		if skipped, err := s.skipMarkup(); err != nil {
			return err
		} else if skipped {
			continue
		}
		name, form, err := s.tag()
		if err != nil {
			return err
		}
		switch {
		case name == "plist":
			if form == closing && (!opened || len(s.stack) != 0) || form != closing && opened || form == selfClosing {
				return s.bad("misplaced <plist>")
			}
			opened, closed = true, form == closing
		case !opened || closed:
			return s.bad("<%s> outside of <plist>", name)
		case form == closing:
			if len(s.stack) == 0 || s.stack[len(s.stack)-1].dict != (name == "dict") || name != "dict" && name != "array" {
				return s.bad("misplaced </%s>", name)
			}
			if s.stack[len(s.stack)-1].set {
				return s.bad("key without a value")
			}
			s.stack = s.stack[:len(s.stack)-1]
		default:
			if len(s.stack) == 0 {
				if root || name != "dict" {
					return s.bad("<%s> where one dictionary is expected", name)
				}
				root = true
			}
			if err := s.value(name, form == selfClosing); err != nil {
				return err
			}
		}
	}
	if !closed || !root {
		return s.bad("cut off")
	}
	return nil
}

// skipMarkup passes over declarations, comments and the document type.
func (s *xmlScanner) skipMarkup() (bool, error) {
	rest := s.in[s.pos:]
	var end []byte
	switch {
	case bytes.HasPrefix(rest, []byte("<?")):
		end = []byte("?>")
	case bytes.HasPrefix(rest, []byte("<!--")):
		end = []byte("-->")
	case bytes.HasPrefix(rest, []byte("<!DOCTYPE")):
		end = []byte(">")
	default:
		return false, nil
	}
	n := bytes.Index(rest, end)
	if n < 0 {
		return false, s.bad("markup without an end")
	}
	if end[0] == '>' && bytes.IndexByte(rest[:n], '[') >= 0 {
		return false, s.bad("document type with declarations of its own")
	}
	s.pos += n + len(end)
	return true, nil
}

type tagForm int

const (
	opening tagForm = iota
	closing
	selfClosing
)

// tag reads the tag at pos; attributes are passed over.
func (s *xmlScanner) tag() (name string, form tagForm, err error) {
	const longest = 1024
	rest := s.in[s.pos+1:]
	end := bytes.IndexByte(rest[:min(len(rest), longest)], '>')
	if end < 0 {
		return "", 0, s.bad("tag without an end")
	}
	body := rest[:end]
	switch {
	case bytes.HasPrefix(body, []byte("/")):
		form, body = closing, body[1:]
	case bytes.HasSuffix(body, []byte("/")):
		form, body = selfClosing, body[:len(body)-1]
	}
	if i := bytes.IndexAny(body, " \t\r\n"); i >= 0 {
		body = body[:i]
	}
	s.pos += 1 + end + 1
	return string(body), form, nil
}

// value handles the element whose opening tag was just read.
func (s *xmlScanner) value(name string, empty bool) error {
	var top *container
	if len(s.stack) > 0 {
		top = &s.stack[len(s.stack)-1]
	}
	if name == "key" {
		if top == nil || !top.dict || top.set {
			return s.bad("misplaced <key>")
		}
		top.set, top.key = true, ""
		if empty {
			return nil
		}
		// Only keys on a wanted level matter; deeper ones are passed over.
		text, err := s.leaf(name, len(s.stack) <= 2)
		top.key = text
		return err
	}
	if top != nil && top.dict {
		if !top.set {
			return s.bad("value without a key")
		}
		top.set = false
	}
	switch name {
	case "dict", "array":
		if empty {
			return nil
		}
		if len(s.stack) == maxDepth {
			return s.bad("nested deeper than %d", maxDepth)
		}
		s.stack = append(s.stack, container{dict: name == "dict"})
		return nil
	case "string", "integer", "real", "date", "data", "true", "false":
		path, want := s.path()
		var text string
		if !empty {
			var err error
			if text, err = s.leaf(name, want); err != nil {
				return err
			}
		}
		if want && len(text) <= maxValue {
			if v, ok := xmlScalar(name, text); ok {
				s.out[path] = v
			}
		}
		return nil
	}
	return s.bad("unknown element <%s>", name)
}

// path returns where the value at hand stands, and whether it is wanted. Of
// several values with the same key the first counts.
func (s *xmlScanner) path() (string, bool) {
	var path string
	switch {
	case len(s.stack) == 1:
		path = s.stack[0].key
	case len(s.stack) == 2 && s.stack[1].dict:
		path = s.stack[0].key + "/" + s.stack[1].key
	default:
		return "", false
	}
	_, seen := s.out[path]
	return path, !seen && slices.Contains(s.wanted, path)
}

// leaf reads the text up to </name>; it is decoded only when wanted.
func (s *xmlScanner) leaf(name string, wanted bool) (string, error) {
	var text []byte
	add := func(raw []byte, literal bool) error {
		if !wanted || len(text) > maxValue {
			return nil
		}
		if literal {
			text = append(text, raw...)
			return nil
		}
		var err error
		text, err = s.unescape(text, raw)
		return err
	}
	for {
		at := bytes.IndexByte(s.in[s.pos:], '<')
		if at < 0 {
			return "", s.bad("<%s> without an end", name)
		}
		if err := add(s.in[s.pos:s.pos+at], false); err != nil {
			return "", err
		}
		s.pos += at
		rest := s.in[s.pos:]
		if cdata := []byte("<![CDATA["); bytes.HasPrefix(rest, cdata) {
			n := bytes.Index(rest, []byte("]]>"))
			if n < 0 {
				return "", s.bad("CDATA without an end")
			}
			if err := add(rest[len(cdata):n], true); err != nil {
				return "", err
			}
			s.pos += n + 3
			continue
		}
		if skipped, err := s.skipMarkup(); err != nil {
			return "", err
		} else if skipped {
			continue
		}
		got, form, err := s.tag()
		if err != nil {
			return "", err
		}
		if form != closing || got != name {
			return "", s.bad("<%s> holds another element", name)
		}
		if !utf8.Valid(text) {
			return "", s.bad("text is not UTF-8")
		}
		return string(text), nil
	}
}

// unescape appends raw to dst with the entities of XML replaced.
func (s *xmlScanner) unescape(dst, raw []byte) ([]byte, error) {
	for {
		at := bytes.IndexByte(raw, '&')
		if at < 0 {
			return append(dst, raw...), nil
		}
		dst = append(dst, raw[:at]...)
		raw = raw[at+1:]
		end := bytes.IndexByte(raw[:min(len(raw), 12)], ';')
		if end < 0 {
			return nil, s.bad("entity without an end")
		}
		switch name := string(raw[:end]); {
		case name == "amp":
			dst = append(dst, '&')
		case name == "lt":
			dst = append(dst, '<')
		case name == "gt":
			dst = append(dst, '>')
		case name == "quot":
			dst = append(dst, '"')
		case name == "apos":
			dst = append(dst, '\'')
		case strings.HasPrefix(name, "#"):
			base, digits := 10, name[1:]
			if strings.HasPrefix(digits, "x") {
				base, digits = 16, digits[1:]
			}
			c, err := strconv.ParseUint(digits, base, 32)
			if err != nil || c == 0 || c > utf8.MaxRune || !utf8.ValidRune(rune(c)) {
				return nil, s.bad("unsound character reference")
			}
			dst = utf8.AppendRune(dst, rune(c))
		default:
			return nil, s.bad("unknown entity")
		}
		raw = raw[end+1:]
	}
}

func xmlScalar(element, text string) (any, bool) {
	switch element {
	case "string":
		return text, true
	case "true", "false":
		return element == "true", true
	case "integer":
		v, err := strconv.ParseInt(strings.TrimSpace(text), 0, 64)
		return v, err == nil
	case "real":
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		return v, err == nil
	case "date":
		v, err := time.Parse(time.RFC3339, strings.TrimSpace(text))
		return v.UTC(), err == nil
	case "data":
		clean := strings.Join(strings.Fields(text), "")
		v, err := base64.StdEncoding.DecodeString(clean)
		return v, err == nil
	}
	return nil, false
}
