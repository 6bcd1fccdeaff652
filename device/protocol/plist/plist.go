// Package plist reads and writes whole property lists that are exchanged with
// devices.
//
// Decode takes binary and XML lists from a peer that may be hostile: what it
// returns is never much larger than what came in, however the list's objects
// refer to each other, and no nesting exhausts the stack. Package bplist, which
// looks into lists without decoding them, is for the large ones of backups.
package plist

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	howett "howett.net/plist"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

// ErrFormat says that bytes are not a sound property list.
var ErrFormat = errors.New("not a sound property list")

var errUnfolds = fmt.Errorf("%w: it unfolds to much more than it has bytes", ErrFormat)

// errNaN: no message has such a value, and it could not be written again.
var errNaN = fmt.Errorf("%w: a real that is no number", ErrFormat)

// What a value and a container cost in memory besides their content, in bytes,
// and how many times its own length a list may cost. Messages of devices come
// to three times at most.
const (
	valueCost     = 16
	containerCost = 64
	maxUnfolding  = 8
	smallList     = 64 << 10 // may always be made
)

// maxDepth bounds how deep containers nest. Messages of devices have under ten
// levels.
const maxDepth = 128

// Decode reads a binary or XML property list. Its values are map[string]any,
// []any, string, []byte, bool, float64, time.Time, and int64, or uint64 for an
// integer above 1<<63 - 1. Anything else, such as the references of keyed
// archives, makes the list unsound.
func Decode(b []byte) (any, error) {
	if bplist.Is(b) {
		return decodeBinary(b)
	}
	return decodeXML(b)
}

// Dict is Decode for a list that must hold a dictionary.
func Dict(b []byte) (map[string]any, error) {
	v, err := Decode(b)
	if err != nil {
		return nil, err
	}
	d, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: it holds no dictionary", ErrFormat)
	}
	return d, nil
}

// EncodeBinary writes v, which is made of the types that Decode returns, of
// other integers and strings, or of slices and maps of such, as a binary
// property list.
func EncodeBinary(v any) ([]byte, error) { return encode(v, howett.BinaryFormat) }

// EncodeXML writes v as EncodeBinary does, as XML.
func EncodeXML(v any) ([]byte, error) { return encode(v, howett.XMLFormat) }

func encode(v any, format int) ([]byte, error) {
	var b bytes.Buffer
	e := howett.NewEncoderForFormat(&b, format)
	if format == howett.XMLFormat {
		e.Indent("\t")
	}
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("write property list: %w", err)
	}
	return b.Bytes(), nil
}

type binary struct {
	doc bplist.Doc
	// left is how many more bytes of memory, roughly, may be made. A list that
	// refers to its containers again and again would unfold without end.
	left int
	// Shared text and data are made once.
	texts map[bplist.Ref]string
}

func decodeBinary(b []byte) (any, error) {
	doc, err := bplist.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := doc.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	d := binary{doc: doc, left: maxUnfolding*len(b) + smallList, texts: map[bplist.Ref]string{}}
	return d.value(doc.Top(), 0)
}

func (d *binary) value(r bplist.Ref, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: it nests deeper than %d levels", ErrFormat, maxDepth)
	}
	if !d.pay(valueCost) {
		return nil, errUnfolds
	}
	if l, ok := d.doc.Array(r); ok {
		if !d.pay(containerCost) {
			return nil, errUnfolds
		}
		out := make([]any, 0, min(l.Len(), d.left/valueCost))
		for i := range l.Len() {
			v, err := d.value(l.At(i), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	if m, ok := d.doc.Dict(r); ok {
		if !d.pay(containerCost + m.Keys.Len()*valueCost) {
			return nil, errUnfolds
		}
		out := make(map[string]any, m.Keys.Len())
		for i := range m.Keys.Len() {
			k, ok := d.text(m.Keys.At(i))
			if !ok {
				return nil, fmt.Errorf("%w: a key is no text", ErrFormat)
			}
			v, err := d.value(m.Values.At(i), depth+1)
			if err != nil {
				return nil, err
			}
			if _, twice := out[k]; !twice { // as bplist.Doc.Lookup does
				out[k] = v
			}
		}
		return out, nil
	}
	return d.scalar(r)
}

// pay reports whether so much more may be made.
func (d *binary) pay(cost int) bool {
	d.left -= cost
	return d.left >= 0
}

func (d *binary) scalar(r bplist.Ref) (any, error) {
	if v, ok := d.text(r); ok {
		return v, nil
	}
	if v, ok := d.doc.Bool(r); ok {
		return v, nil
	}
	if v, ok := d.doc.Int(r); ok {
		return v, nil
	}
	if v, ok := d.doc.Uint(r); ok {
		return v, nil
	}
	if v, ok := d.doc.Real(r); ok {
		if math.IsNaN(v) {
			return nil, errNaN
		}
		return v, nil
	}
	if v, ok := d.doc.Date(r); ok {
		return v, nil
	}
	if v, ok := d.doc.Data(r); ok {
		return v, nil // inside the bytes given, so sharing costs nothing
	}
	return nil, fmt.Errorf("%w: a value of a type that no message has", ErrFormat)
}

func (d *binary) text(r bplist.Ref) (string, bool) {
	if s, ok := d.texts[r]; ok {
		return s, true
	}
	s, ok := d.doc.String(r)
	if ok {
		d.left -= len(s) + containerCost // noticed with the next value
		d.texts[r] = s
	}
	return s, ok
}

func decodeXML(b []byte) (any, error) {
	if err := checkXML(b); err != nil {
		return nil, err
	}
	var v any
	format, err := howett.Unmarshal(b, &v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if format != howett.XMLFormat {
		return nil, fmt.Errorf("%w: neither binary nor XML", ErrFormat)
	}
	return normal(v)
}

// checkXML refuses lists that would exhaust the decoder's stack, and document
// types of one's own.
func checkXML(b []byte) error {
	t := bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), " \t\r\n")
	if !bytes.HasPrefix(t, []byte("<")) {
		return fmt.Errorf("%w: neither binary nor XML", ErrFormat)
	}
	depth := 0
	for {
		i := bytes.IndexByte(t, '<')
		if i < 0 {
			return nil
		}
		t = t[i+1:]
		// What looks like a tag inside of these is none.
		end := []byte(">")
		switch {
		case bytes.HasPrefix(t, []byte("!--")):
			t, end = t[len("!--"):], []byte("-->")
		case bytes.HasPrefix(t, []byte("![CDATA[")):
			t, end = t[len("![CDATA["):], []byte("]]>")
		case bytes.HasPrefix(t, []byte("?")):
			end = []byte("?>")
		case bytes.HasPrefix(t, []byte("!")) && bytes.IndexByte(t[:tagEnd(t)], '[') >= 0:
			return fmt.Errorf("%w: it has a document type of its own", ErrFormat)
		case bytes.HasPrefix(t, []byte("!")):
		case bytes.HasPrefix(t, []byte("/")):
			depth--
		default:
			tag := t[:tagEnd(t)]
			// Quotes could hide where a tag ends. Only the outermost one has any.
			if bytes.ContainsAny(tag, "\"'") && depth > 0 {
				return fmt.Errorf("%w: a tag with attributes", ErrFormat)
			}
			if len(tag) == 0 || tag[len(tag)-1] != '/' || bytes.ContainsAny(tag, "\"'") {
				depth++
			}
		}
		if depth < 0 || depth > maxDepth {
			return fmt.Errorf("%w: it nests deeper than %d levels, or closes what is not open", ErrFormat, maxDepth)
		}
		n := bytes.Index(t, end)
		if n < 0 {
			return fmt.Errorf("%w: it ends inside of a tag", ErrFormat)
		}
		t = t[n+len(end):]
	}
}

// tagEnd is where the tag ends that t begins with, or the length of t.
func tagEnd(t []byte) int {
	if n := bytes.IndexByte(t, '>'); n >= 0 {
		return n
	}
	return len(t)
}

// normal gives the values that the XML decoder made the types of Decode.
func normal(v any) (any, error) {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			n, err := normal(e)
			if err != nil {
				return nil, err
			}
			x[k] = n
		}
	case []any:
		for i, e := range x {
			n, err := normal(e)
			if err != nil {
				return nil, err
			}
			x[i] = n
		}
	case uint64:
		if x <= 1<<63-1 {
			return int64(x), nil
		}
	case float64:
		if math.IsNaN(x) {
			return nil, errNaN
		}
	case string, []byte, bool, int64, time.Time:
	default:
		return nil, fmt.Errorf("%w: a value of type %T", ErrFormat, v)
	}
	return v, nil
}
