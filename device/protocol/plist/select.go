package plist

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

const (
	// maxSelected bounds one selected value, in bytes; a larger value counts as
	// absent. A keybag has less than 2 KB.
	maxSelected = 1 << 20
	// maxSkippedDepth bounds the depth of containers in a list that Select reads.
	// Select skips most containers, so that depth costs little.
	maxSkippedDepth = 512
)

// Values are scalars of a property list by their path: "Version", or
// "Lockdown/ProductType" one level down. Their types are string, int64, float64,
// bool, time.Time and []byte.
type Values map[string]any

// Select returns the wanted values of a binary or XML property list whose root is
// a dictionary. A value whose type is not one of those of Values counts as
// absent. If a key has several values, the first counts. Select checks that the
// rest of the list is well-formed and skips it, so that a list full of icons
// costs little time and no memory.
func Select(data []byte, wanted ...string) (Values, error) {
	if bplist.Is(data) {
		return selectBinary(data, wanted)
	}
	return selectXML(data, wanted)
}

func selectBinary(data []byte, wanted []string) (Values, error) {
	doc, err := parseBinary(data)
	if err != nil {
		return nil, err
	}
	top, ok := doc.Dict(doc.Top())
	if !ok {
		return nil, errNoDict
	}
	out := Values{}
	for _, path := range wanted {
		dict, name := top, path
		if outer, inner, nested := strings.Cut(path, "/"); nested {
			ref, ok := doc.Lookup(top, outer)
			if !ok {
				continue
			}
			if dict, ok = doc.Dict(ref); !ok {
				continue
			}
			name = inner
		}
		if ref, ok := doc.Lookup(dict, name); ok {
			if v, ok := selectScalar(&doc, ref); ok {
				out[path] = v
			}
		}
	}
	return out, nil
}

func selectScalar(doc *bplist.Doc, ref bplist.Ref) (any, bool) {
	if v, ok := doc.Bool(ref); ok {
		return v, true
	}
	if v, ok := doc.Int(ref); ok {
		return v, true
	}
	if v, ok := doc.Real(ref); ok {
		return v, true
	}
	if v, ok := doc.Date(ref); ok {
		return v, true
	}
	if v, ok := doc.Data(ref); ok && len(v) <= maxSelected {
		return bytes.Clone(v), true
	}
	if v, ok := doc.String(ref); ok && len(v) <= maxSelected {
		return v, true
	}
	return nil, false
}

func selectXML(data []byte, wanted []string) (Values, error) {
	s := newXMLScanner(data, maxSkippedDepth)
	out := Values{}
	var keys [2]string // current keys of the two outer levels
	for first := true; ; first = false {
		token, err := s.next()
		if err != nil {
			return nil, err
		}
		if first && token.kind != tokenDict {
			return nil, errNoDict
		}
		depth := len(s.stack)
		switch token.kind {
		case tokenEnd:
			return out, nil
		case tokenKey:
			if depth > len(keys) {
				continue
			}
			if keys[depth-1], err = xmlText(token.raw); err != nil {
				return nil, err
			}
		case tokenScalar:
			if depth > len(keys) || !s.stack[depth-1].dict {
				continue
			}
			path := strings.Join(keys[:depth], "/")
			if _, seen := out[path]; seen || !slices.Contains(wanted, path) {
				continue
			}
			text, err := xmlText(token.raw)
			if err != nil {
				return nil, err
			}
			v, ok := xmlScalar(token.element, text)
			if _, large := v.(uint64); ok && !large && len(text) <= maxSelected {
				out[path] = v
			}
		}
	}
}

// Text returns a string, or a number as text, since old lists have versions as
// numbers.
func (v Values) Text(path string) string {
	switch x := v[path].(type) {
	case string:
		return x
	case int64:
		return strconv.FormatInt(x, 10)
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return ""
}

// Bool returns a boolean. A number is true unless it is 0.
func (v Values) Bool(path string) (value, ok bool) {
	switch x := v[path].(type) {
	case bool:
		return x, true
	case int64:
		return x != 0, true
	}
	return false, false
}

// Time returns a date, or the zero time.
func (v Values) Time(path string) time.Time {
	t, _ := v[path].(time.Time)
	return t
}

// Data returns bytes, or nil.
func (v Values) Data(path string) []byte {
	b, _ := v[path].([]byte)
	return b
}

var errNoDict = fmt.Errorf("%w: its root is not a dictionary", ErrFormat)
