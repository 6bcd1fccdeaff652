// Package plist reads and writes Apple's property lists, binary and XML.
//
// Decode reads all of a list, such as a message of a device. Select reads a few
// values of a large list, such as the Info.plist of a backup. Both take lists
// from a peer that may be hostile: memory is bounded by a small multiple of the
// input, however a list's objects refer to each other, and nested containers
// cannot exhaust the stack. Both use package bplist, which gives access to the
// objects of a binary list.
package plist

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	howett "howett.net/plist"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

// ErrFormat says that bytes are not a valid property list.
var ErrFormat = errors.New("not a valid property list")

// Decode reads a binary or XML property list. Its values are map[string]any,
// []any, string, []byte, bool, float64, time.Time, and int64, or uint64 for an
// integer above 1<<63 - 1. A list with anything else, such as the references of
// keyed archives, is not valid.
func Decode(b []byte) (any, error) {
	if bplist.Is(b) {
		return decodeBinary(b)
	}
	return decodeXML(b)
}

// Dict is Decode for a list whose root must be a dictionary.
func Dict(b []byte) (map[string]any, error) {
	v, err := Decode(b)
	if err != nil {
		return nil, err
	}
	d, ok := v.(map[string]any)
	if !ok {
		return nil, errNoDict
	}
	return d, nil
}

// EncodeBinary returns v as a binary property list. v may have the types that
// Decode returns, any other integer or string type, and slices and maps of all
// these.
func EncodeBinary(v any) ([]byte, error) { return encode(v, howett.BinaryFormat) }

// EncodeXML returns v, as described at EncodeBinary, as an XML property list.
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

func decodeXML(b []byte) (any, error) {
	s := newXMLScanner(b, maxDepth)
	s.ignoreTail = true // peers may pad their messages
	token, err := s.next()
	if err != nil {
		return nil, err
	}
	v, err := s.value(token)
	if err != nil {
		return nil, err
	}
	if _, err := s.next(); err != nil { // the next token must be the end
		return nil, err
	}
	return v, nil
}

// value returns the value that begins with token.
func (s *xmlScanner) value(token xmlToken) (any, error) {
	switch token.kind {
	case tokenScalar:
		return s.scalar(token)
	case tokenArray:
		out := []any{}
		for {
			token, err := s.next()
			switch {
			case err != nil:
				return nil, err
			case token.kind == tokenClose:
				return out, nil
			}
			v, err := s.value(token)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
	}
	out := map[string]any{}
	for {
		token, err := s.next()
		switch {
		case err != nil:
			return nil, err
		case token.kind == tokenClose:
			return out, nil
		}
		key, err := xmlText(token.raw)
		if err != nil {
			return nil, err
		}
		if token, err = s.next(); err != nil {
			return nil, err
		}
		v, err := s.value(token)
		if err != nil {
			return nil, err
		}
		if _, twice := out[key]; !twice { // the first counts, as in Select
			out[key] = v
		}
	}
}

func (s *xmlScanner) scalar(token xmlToken) (any, error) {
	text, err := xmlText(token.raw)
	if err != nil {
		return nil, err
	}
	v, ok := xmlScalar(token.element, text)
	if !ok {
		return nil, s.bad("invalid <%s>", token.element)
	}
	if f, ok := v.(float64); ok && math.IsNaN(f) {
		return nil, errNaN
	}
	return v, nil
}
