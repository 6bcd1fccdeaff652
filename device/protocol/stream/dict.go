package stream

import (
	"fmt"
	"math"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// MaxMessage limits a message of a device, in bytes. The largest real ones are
// pages of the list of apps.
const MaxMessage = 8 << 20

// Dict is a dictionary that a device sent. Its methods return the zero value if a
// value is missing or of another type, and work on a nil Dict.
type Dict map[string]any

// Decode decodes a property list whose root is a dictionary. The error is a
// plist.ErrFormat.
func Decode(b []byte) (Dict, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", plist.ErrFormat, len(b), MaxMessage)
	}
	return plist.Dict(b)
}

// Has reports whether key has a value.
func (d Dict) Has(key string) bool { _, ok := d[key]; return ok }

// String returns the text of key.
func (d Dict) String(key string) string { s, _ := d[key].(string); return s }

// Bool returns the boolean of key. Some devices send 0 and 1 instead.
func (d Dict) Bool(key string) bool {
	b, ok := d[key].(bool)
	if !ok {
		n, _ := d.Int(key)
		return n == 1
	}
	return b
}

// Int returns the integer of key, which may be stored as a real.
func (d Dict) Int(key string) (int64, bool) {
	switch n := d[key].(type) {
	case int64:
		return n, true
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int64(n), true
		}
	}
	return 0, false
}

// Data returns the bytes of key.
func (d Dict) Data(key string) []byte { b, _ := d[key].([]byte); return b }

// Time returns the date of key.
func (d Dict) Time(key string) time.Time { t, _ := d[key].(time.Time); return t }

// Dict returns the dictionary of key.
func (d Dict) Dict(key string) Dict { m, _ := d[key].(map[string]any); return m }

// List returns the array of key.
func (d Dict) List(key string) []any { l, _ := d[key].([]any); return l }
