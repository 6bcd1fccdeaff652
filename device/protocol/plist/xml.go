package plist

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// tokenKind says what an xmlToken is.
type tokenKind int

const (
	tokenEnd    tokenKind = iota // the property list ends
	tokenDict                    // a dictionary begins
	tokenArray                   // an array begins
	tokenClose                   // the innermost container ends
	tokenKey                     // the key of the next value
	tokenScalar                  // any other value
)

// xmlToken is one step through an XML property list.
type xmlToken struct {
	kind    tokenKind
	element string // name of a scalar's tag
	raw     []byte // bytes between the tags of a key or scalar; see xmlText
}

// container is an open dictionary or array.
type container struct {
	dict  bool
	keyed bool // the last key has no value yet
	empty bool // the tag closes itself
}

// xmlScanner goes through an XML property list once, from tag to tag. It refuses
// lists that are not well-formed: every value in a dictionary must have a key,
// containers must be closed in order, and <plist> must contain one value. limit
// bounds the depth.
//
// It does not use encoding/xml, since a general decoder is slow. An Info.plist
// has up to 10 MB of icons in base64, which no caller selects: skipping their
// text takes milliseconds, while a general decoder takes most of a second. It
// refuses document types with an internal subset, so the only entities are the
// five of XML.
type xmlScanner struct {
	in     []byte
	pos    int
	limit  int
	stack  []container
	opened bool // <plist> was read
	closed bool // </plist> was read
	root   bool // the value of the list was read or began
	// ignoreTail makes the scanner ignore everything after </plist>.
	ignoreTail bool
}

func newXMLScanner(data []byte, limit int) *xmlScanner {
	return &xmlScanner{in: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), limit: limit}
}

func (s *xmlScanner) bad(format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, s.pos, fmt.Sprintf(format, args...))
}

// next returns the next token. tokenEnd is the last token.
func (s *xmlScanner) next() (xmlToken, error) {
	if n := len(s.stack); n > 0 && s.stack[n-1].empty {
		s.stack = s.stack[:n-1]
		return xmlToken{kind: tokenClose}, nil
	}
	for {
		at := bytes.IndexByte(s.in[s.pos:], '<')
		if at < 0 {
			at = len(s.in) - s.pos
		}
		if len(bytes.TrimSpace(s.in[s.pos:s.pos+at])) != 0 {
			return xmlToken{}, s.bad("text outside of a value")
		}
		s.pos += at
		if s.pos == len(s.in) {
			if !s.closed || !s.root {
				return xmlToken{}, s.bad("it is cut off")
			}
			return xmlToken{kind: tokenEnd}, nil
		}
		if skipped, err := s.skipMarkup(); err != nil {
			return xmlToken{}, err
		} else if skipped {
			continue
		}
		name, form, err := s.tag()
		if err != nil {
			return xmlToken{}, err
		}
		switch {
		case name == "plist":
			if form == closing && (!s.opened || s.closed || len(s.stack) != 0) || form != closing && s.opened || form == selfClosing {
				return xmlToken{}, s.bad("misplaced <plist>")
			}
			s.opened, s.closed = true, form == closing
			if s.closed && s.root && s.ignoreTail {
				return xmlToken{kind: tokenEnd}, nil
			}
		case !s.opened || s.closed:
			return xmlToken{}, s.bad("<%s> outside of <plist>", name)
		case form == closing:
			return s.close(name)
		default:
			return s.element(name, form == selfClosing)
		}
	}
}

func (s *xmlScanner) close(name string) (xmlToken, error) {
	n := len(s.stack)
	if n == 0 || s.stack[n-1].dict != (name == "dict") || name != "dict" && name != "array" {
		return xmlToken{}, s.bad("misplaced </%s>", name)
	}
	if s.stack[n-1].keyed {
		return xmlToken{}, s.bad("a key without a value")
	}
	s.stack = s.stack[:n-1]
	return xmlToken{kind: tokenClose}, nil
}

// element returns the token of an opening tag that was just read.
func (s *xmlScanner) element(name string, empty bool) (xmlToken, error) {
	var top *container
	if n := len(s.stack); n > 0 {
		top = &s.stack[n-1]
	}
	switch {
	case name == "key":
		if top == nil || !top.dict || top.keyed {
			return xmlToken{}, s.bad("misplaced <key>")
		}
		top.keyed = true
	case top == nil && s.root:
		return xmlToken{}, s.bad("<%s> after the only value", name)
	case top == nil:
		s.root = true
	case top.dict && !top.keyed:
		return xmlToken{}, s.bad("a value without a key")
	default:
		top.keyed = false
	}
	switch name {
	case "dict", "array":
		if len(s.stack) == s.limit {
			return xmlToken{}, s.bad("nested deeper than %d levels", s.limit)
		}
		s.stack = append(s.stack, container{dict: name == "dict", empty: empty})
		if name == "dict" {
			return xmlToken{kind: tokenDict}, nil
		}
		return xmlToken{kind: tokenArray}, nil
	case "key", "string", "integer", "real", "date", "data", "true", "false":
		token := xmlToken{kind: tokenScalar, element: name}
		if name == "key" {
			token.kind = tokenKey
		}
		if empty {
			return token, nil
		}
		var err error
		token.raw, err = s.leaf(name)
		return token, err
	}
	return xmlToken{}, s.bad("unknown element <%s>", name)
}

// leaf returns the bytes before </name> and moves pos behind this tag.
func (s *xmlScanner) leaf(name string) ([]byte, error) {
	start := s.pos
	for {
		at := bytes.IndexByte(s.in[s.pos:], '<')
		if at < 0 {
			return nil, s.bad("<%s> without an end", name)
		}
		s.pos += at
		if skipped, err := s.skipCDATA(); err != nil {
			return nil, err
		} else if skipped {
			continue
		}
		if skipped, err := s.skipMarkup(); err != nil {
			return nil, err
		} else if skipped {
			continue
		}
		end := s.pos
		got, form, err := s.tag()
		if err != nil {
			return nil, err
		}
		if form != closing || got != name {
			return nil, s.bad("<%s> contains another element", name)
		}
		return s.in[start:end], nil
	}
}

var (
	cdataBegin = []byte("<![CDATA[")
	cdataEnd   = []byte("]]>")
)

func (s *xmlScanner) skipCDATA() (bool, error) {
	if !bytes.HasPrefix(s.in[s.pos:], cdataBegin) {
		return false, nil
	}
	n := bytes.Index(s.in[s.pos:], cdataEnd)
	if n < 0 {
		return false, s.bad("CDATA without an end")
	}
	s.pos += n + len(cdataEnd)
	return true, nil
}

// skipMarkup skips a declaration, a comment or the document type.
func (s *xmlScanner) skipMarkup() (bool, error) {
	rest := s.in[s.pos:]
	end := markupEnd(rest)
	if end == nil {
		return false, nil
	}
	n := bytes.Index(rest, end)
	if n < 0 {
		return false, s.bad("markup without an end")
	}
	if end[0] == '>' && bytes.IndexByte(rest[:n], '[') >= 0 {
		return false, s.bad("a document type with its own declarations")
	}
	s.pos += n + len(end)
	return true, nil
}

// markupEnd returns the bytes that end the kind of markup with which b begins,
// or nil if b does not begin with markup.
func markupEnd(b []byte) []byte {
	switch {
	case bytes.HasPrefix(b, []byte("<?")):
		return []byte("?>")
	case bytes.HasPrefix(b, []byte("<!--")):
		return []byte("-->")
	case bytes.HasPrefix(b, []byte("<!DOCTYPE")):
		return []byte(">")
	}
	return nil
}

type tagForm int

const (
	opening tagForm = iota
	closing
	selfClosing
)

// tag reads the tag at pos. It ignores attributes.
func (s *xmlScanner) tag() (name string, form tagForm, err error) {
	const longest = 1024
	rest := s.in[s.pos+1:]
	end := bytes.IndexByte(rest[:min(len(rest), longest)], '>')
	if end < 0 {
		return "", 0, s.bad("a tag without an end")
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

// xmlText returns the text of raw, the bytes that an xmlScanner found between
// two tags. It replaces entities and removes comments and the marks of CDATA.
func xmlText(raw []byte) (string, error) {
	var text []byte
	for {
		at := bytes.IndexByte(raw, '<')
		if at < 0 {
			at = len(raw)
		}
		var err error
		if text, err = unescape(text, raw[:at]); err != nil {
			return "", err
		}
		raw = raw[at:]
		if len(raw) == 0 {
			break
		}
		end := cdataEnd
		literal := bytes.HasPrefix(raw, cdataBegin)
		if !literal {
			end = markupEnd(raw)
		}
		n := bytes.Index(raw, end) // cannot fail, since the scanner has found end before
		if literal {
			text = append(text, raw[len(cdataBegin):n]...)
		}
		raw = raw[n+len(end):]
	}
	if !utf8.Valid(text) {
		return "", fmt.Errorf("%w: text is not UTF-8", ErrFormat)
	}
	return string(text), nil
}

// unescape appends raw to dst with the entities of XML replaced.
func unescape(dst, raw []byte) ([]byte, error) {
	for {
		at := bytes.IndexByte(raw, '&')
		if at < 0 {
			return append(dst, raw...), nil
		}
		dst = append(dst, raw[:at]...)
		raw = raw[at+1:]
		end := bytes.IndexByte(raw[:min(len(raw), 12)], ';')
		if end < 0 {
			return nil, fmt.Errorf("%w: an entity without an end", ErrFormat)
		}
		c, ok := entity(string(raw[:end]))
		if !ok {
			return nil, fmt.Errorf("%w: unknown entity %q", ErrFormat, raw[:end])
		}
		dst = utf8.AppendRune(dst, c)
		raw = raw[end+1:]
	}
}

func entity(name string) (rune, bool) {
	switch name {
	case "amp":
		return '&', true
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	digits, ok := strings.CutPrefix(name, "#")
	if !ok {
		return 0, false
	}
	base := 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		base, digits = 16, hex
	}
	c, err := strconv.ParseUint(digits, base, 32)
	return rune(c), err == nil && c != 0 && c <= utf8.MaxRune && utf8.ValidRune(rune(c))
}

// xmlScalar returns the value of a scalar. Its type is one of those that Decode
// returns.
func xmlScalar(element, text string) (any, bool) {
	switch element {
	case "string":
		return text, true
	case "true", "false":
		return element == "true", true
	case "integer":
		return xmlInteger(strings.TrimSpace(text))
	case "real":
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		return v, err == nil
	case "date":
		v, err := time.Parse(time.RFC3339, strings.TrimSpace(text))
		return v.UTC(), err == nil
	case "data":
		v, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		return v, err == nil
	}
	return nil, false
}

// xmlInteger parses a decimal number, or a hexadecimal one after "0x".
func xmlInteger(text string) (any, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	base := 10
	if hex, ok := strings.CutPrefix(strings.ToLower(digits), "0x"); ok {
		base, digits = 16, hex
	}
	v, err := strconv.ParseUint(digits, base, 64)
	switch {
	case err != nil, negative && v > -math.MinInt64:
		return nil, false
	case negative:
		return -int64(v), true
	case v > math.MaxInt64:
		return v, true
	}
	return int64(v), true
}
