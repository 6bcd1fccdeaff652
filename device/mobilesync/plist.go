package mobilesync

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

// MaxPlist bounds the bytes read of one property list. Real ones are 189 bytes
// (Status.plist) to about 10 MB (Info.plist with many icons).
const MaxPlist = 64 << 20

// maxValue bounds one value taken out of a property list; larger ones count as
// absent. A keybag is under 2 KB.
const maxValue = 1 << 20

var errPlist = errors.New("not a sound property list")

// values are the wanted scalars of a property list by their path: "Version",
// or "Lockdown/ProductType" one level down. Their types are string, int64,
// float64, bool, time.Time and []byte. Only what is asked for is kept, so a
// list of icons costs a scan and no memory.
type values map[string]any

// readPlist takes the wanted values out of a binary or XML property list. A
// value of a type that is not a scalar counts as absent. What the list
// holds outside of the wanted paths is checked for soundness only.
func readPlist(data []byte, wanted ...string) (values, error) {
	if bplist.Is(data) {
		return readBinaryPlist(data, wanted)
	}
	return readXMLPlist(data, wanted)
}

func readBinaryPlist(data []byte, wanted []string) (values, error) {
	doc, err := bplist.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(); err != nil {
		return nil, err
	}
	top, ok := doc.Dict(doc.Top())
	if !ok {
		return nil, fmt.Errorf("%w: it holds no dictionary", errPlist)
	}
	out := values{}
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
			if v, ok := scalar(&doc, ref); ok {
				out[path] = v
			}
		}
	}
	return out, nil
}

func scalar(doc *bplist.Doc, ref bplist.Ref) (any, bool) {
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
	if v, ok := doc.Data(ref); ok && len(v) <= maxValue {
		return bytes.Clone(v), true
	}
	if v, ok := doc.String(ref); ok && len(v) <= maxValue {
		return v, true
	}
	return nil, false
}

// text returns a string or number as text: versions were numbers once.
func (v values) text(path string) string {
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

// bool returns a truth value; numbers count as true unless 0.
func (v values) bool(path string) (value, ok bool) {
	switch x := v[path].(type) {
	case bool:
		return x, true
	case int64:
		return x != 0, true
	}
	return false, false
}

func (v values) date(path string) time.Time {
	t, _ := v[path].(time.Time)
	return t
}

func (v values) data(path string) []byte {
	b, _ := v[path].([]byte)
	return b
}
