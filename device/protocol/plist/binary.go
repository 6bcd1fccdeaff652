package plist

import (
	"fmt"
	"math"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

var errUnfolds = fmt.Errorf("%w: it expands to many times its own size", ErrFormat)

// errNaN is the error for a real that is not a number. No message has one, and
// it could not be encoded again.
var errNaN = fmt.Errorf("%w: a real that is not a number", ErrFormat)

// Approximate memory of decoded values, in bytes.
const (
	valueCost     = 16 // of a value, without its content
	containerCost = 64 // of a container, without its values
	// maxExpansion limits the memory of a decoded list, in multiples of its
	// encoded length. Messages of devices need three.
	maxExpansion = 8
	minBudget    = 64 << 10 // this much memory is always allowed
)

// maxDepth limits the depth of containers. Messages of devices have fewer than
// ten levels.
const maxDepth = 128

// binary decodes one binary property list.
type binary struct {
	doc bplist.Doc
	// left is the approximate number of bytes that may still be allocated.
	// Without this limit, containers that refer to each other repeatedly would
	// expand without end.
	left  int
	texts map[bplist.Ref]string // decoded texts, so that a shared text is decoded once
}

// parseBinary returns b as a Doc and checks all its objects.
func parseBinary(b []byte) (bplist.Doc, error) {
	doc, err := bplist.Parse(b)
	if err == nil {
		err = doc.Validate()
	}
	if err != nil {
		return doc, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return doc, nil
}

func decodeBinary(b []byte) (any, error) {
	doc, err := parseBinary(b)
	if err != nil {
		return nil, err
	}
	d := binary{doc: doc, left: maxExpansion*len(b) + minBudget, texts: map[bplist.Ref]string{}}
	return d.value(doc.Top(), 0)
}

func (d *binary) value(r bplist.Ref, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: it is nested deeper than %d levels", ErrFormat, maxDepth)
	}
	if !d.charge(valueCost) {
		return nil, errUnfolds
	}
	if l, ok := d.doc.Array(r); ok {
		if !d.charge(containerCost) {
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
		if !d.charge(containerCost + m.Keys.Len()*valueCost) {
			return nil, errUnfolds
		}
		out := make(map[string]any, m.Keys.Len())
		for i := range m.Keys.Len() {
			k, ok := d.text(m.Keys.At(i))
			if !ok {
				return nil, fmt.Errorf("%w: a key is not text", ErrFormat)
			}
			v, err := d.value(m.Values.At(i), depth+1)
			if err != nil {
				return nil, err
			}
			if _, twice := out[k]; !twice { // the first counts, as in bplist.Doc.Lookup
				out[k] = v
			}
		}
		return out, nil
	}
	return d.scalar(r)
}

// charge takes cost from the budget and reports whether it was enough.
func (d *binary) charge(cost int) bool {
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
		return v, nil // part of the input, so a shared value takes no more memory
	}
	return nil, fmt.Errorf("%w: a value of a type that messages do not have", ErrFormat)
}

func (d *binary) text(r bplist.Ref) (string, bool) {
	if s, ok := d.texts[r]; ok {
		return s, true
	}
	s, ok := d.doc.String(r)
	if ok {
		d.left -= len(s) + containerCost // if this was too much, the next charge fails
		d.texts[r] = s
	}
	return s, ok
}
