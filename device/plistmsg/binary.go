package plistmsg

import (
	"bytes"

	"github.com/snap-backup/snap/device/mobilesync/bplist"
)

type binaryReader struct {
	doc   bplist.Doc
	left  int // values that may still come
	bytes int // bytes of text and data that may still come
}

// decodeBinary decodes a binary property list. Objects may refer to one object
// many times, so the result is bounded by what it would take, not by the input.
func decodeBinary(data []byte) (any, error) {
	doc, err := bplist.Parse(data)
	if err != nil {
		return nil, bad("%v", err)
	}
	r := binaryReader{doc: doc, left: maxValues, bytes: 4*len(data) + step}
	return r.value(doc.Top(), 0)
}

func (r *binaryReader) value(ref bplist.Ref, depth int) (any, error) {
	if r.left--; r.left < 0 {
		return nil, bad("more than %d values", maxValues)
	}
	if depth > maxDepth {
		return nil, bad("nested deeper than %d", maxDepth)
	}
	if list, ok := r.doc.Array(ref); ok {
		out := []any{} // not made in one piece: what it says of its length proves nothing
		for i := range list.Len() {
			v, err := r.value(list.At(i), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	if dict, ok := r.doc.Dict(ref); ok {
		out := map[string]any{}
		for i := range dict.Keys.Len() {
			key, ok := r.doc.String(dict.Keys.At(i))
			if !ok {
				return nil, bad("key that is no text")
			}
			if err := r.take(len(key)); err != nil {
				return nil, err
			}
			v, err := r.value(dict.Values.At(i), depth+1)
			if err != nil {
				return nil, err
			}
			out[key] = v
		}
		return out, nil
	}
	return r.scalar(ref)
}

func (r *binaryReader) scalar(ref bplist.Ref) (any, error) {
	if s, ok := r.doc.String(ref); ok {
		return s, r.take(len(s))
	}
	if b, ok := r.doc.Data(ref); ok {
		return bytes.Clone(b), r.take(len(b))
	}
	if v, ok := r.doc.Bool(ref); ok {
		return v, nil
	}
	if v, ok := r.doc.Int(ref); ok {
		if v < 0 {
			return v, nil
		}
		return uint64(v), nil
	}
	if v, ok := r.doc.Uint(ref); ok {
		return v, nil
	}
	if v, ok := r.doc.Real(ref); ok {
		return v, nil
	}
	if v, ok := r.doc.Date(ref); ok {
		return v, nil
	}
	return nil, bad("object of unknown type")
}

func (r *binaryReader) take(n int) error {
	if r.bytes -= n; r.bytes < 0 {
		return bad("its texts are far longer than it is")
	}
	return nil
}
