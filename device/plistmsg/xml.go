package plistmsg

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

type xmlReader struct {
	tokens *xml.Decoder
	left   int // values that may still come
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

func decodeXML(data []byte) (any, error) {
	r := xmlReader{tokens: xml.NewDecoder(bytes.NewReader(data)), left: maxValues}
	el, err := r.next()
	if err != nil {
		return nil, err
	}
	if el == nil || el.Name.Local != "plist" {
		return nil, bad("no <plist>")
	}
	if el, err = r.next(); err != nil {
		return nil, err
	}
	if el == nil {
		return nil, bad("empty <plist>")
	}
	v, err := r.value(el, 0)
	if err != nil {
		return nil, err
	}
	if el, err = r.next(); err != nil {
		return nil, err
	}
	if el != nil {
		return nil, bad("more than one value")
	}
	return v, nil
}

// next returns the next opening tag, or nil at the closing tag of the element
// around it.
func (r *xmlReader) next() (*xml.StartElement, error) {
	for {
		token, err := r.tokens.RawToken()
		if errors.Is(err, io.EOF) {
			return nil, bad("cut off")
		}
		if err != nil {
			return nil, bad("%v", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			return &t, nil
		case xml.EndElement:
			return nil, nil
		case xml.CharData:
			if len(bytes.TrimSpace(t)) != 0 {
				return nil, bad("text outside of a value")
			}
		case xml.Directive:
			if bytes.IndexByte(t, '[') >= 0 {
				return nil, bad("document type with declarations of its own")
			}
		}
	}
}

// text reads up to the closing tag of the element at hand.
func (r *xmlReader) text(name string) (string, error) {
	var b []byte
	for {
		token, err := r.tokens.RawToken()
		if err != nil {
			return "", bad("<%s>: %v", name, err)
		}
		switch t := token.(type) {
		case xml.CharData:
			b = append(b, t...)
		case xml.EndElement:
			if t.Name.Local != name {
				return "", bad("<%s> is closed by </%s>", name, t.Name.Local)
			}
			return string(b), nil
		case xml.StartElement:
			return "", bad("<%s> inside <%s>", t.Name.Local, name)
		}
	}
}

func (r *xmlReader) value(el *xml.StartElement, depth int) (any, error) {
	if r.left--; r.left < 0 {
		return nil, bad("more than %d values", maxValues)
	}
	name := el.Name.Local
	switch name {
	case "dict", "array":
		if depth == maxDepth {
			return nil, bad("nested deeper than %d", maxDepth)
		}
		if name == "dict" {
			return r.dict(depth)
		}
		list := []any{}
		for {
			el, err := r.next()
			if err != nil || el == nil {
				return list, err
			}
			v, err := r.value(el, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
	}
	text, err := r.text(name)
	if err != nil {
		return nil, err
	}
	return scalar(name, text)
}

func (r *xmlReader) dict(depth int) (any, error) {
	dict := map[string]any{}
	for {
		el, err := r.next()
		if err != nil || el == nil {
			return dict, err
		}
		if el.Name.Local != "key" {
			return nil, bad("<%s> without a key", el.Name.Local)
		}
		key, err := r.text("key")
		if err != nil {
			return nil, err
		}
		if el, err = r.next(); err != nil {
			return nil, err
		}
		if el == nil {
			return nil, bad("key %q without a value", key)
		}
		if dict[key], err = r.value(el, depth+1); err != nil {
			return nil, err
		}
	}
}

func scalar(element, text string) (any, error) {
	var v any
	var err error
	switch element {
	case "string":
		return text, nil
	case "true", "false":
		return element == "true", nil
	case "integer":
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "-") {
			v, err = strconv.ParseInt(text, 0, 64)
		} else {
			v, err = strconv.ParseUint(strings.TrimPrefix(text, "+"), 0, 64)
		}
	case "real":
		v, err = strconv.ParseFloat(strings.TrimSpace(text), 64)
	case "date":
		v, err = time.Parse(time.RFC3339, strings.TrimSpace(text))
	case "data":
		v, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	default:
		return nil, bad("unknown element <%s>", element)
	}
	if err != nil {
		return nil, bad("<%s>: %v", element, err)
	}
	return v, nil
}
