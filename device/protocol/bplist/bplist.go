// Package bplist gives access to single objects of a binary property list without
// decoding all of it.
//
// A Doc is a view of bytes that the caller keeps. Each call finds one object
// through the offset table, checks all bounds and allocates nothing (String and
// Append copy text). It does not recurse and follows at most one reference. So
// cycles, shared objects that would expand without end, and absurd lengths cost
// nothing. The package does not write property lists.
//
// Methods accept any Ref and any bytes. They report an object of another type, or
// one that does not fit into the list, as absent.
package bplist

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrFormat says that bytes are not a valid binary property list.
var ErrFormat = errors.New("not a valid binary property list")

const (
	header     = "bplist0"
	headerLen  = 8
	trailerLen = 32
)

// Ref names one object of a Doc.
type Ref uint32

// Doc is a binary property list. The zero Doc has no objects.
type Doc struct {
	buf     []byte // header and objects, up to the offset table
	offsets []byte
	offSize int
	refSize int
	count   int
	top     Ref
}

// Parse checks the trailer and the position of the offset table. It does not check
// objects: see Validate.
func Parse(b []byte) (Doc, error) {
	if len(b) < headerLen+trailerLen || string(b[:len(header)]) != header {
		return Doc{}, ErrFormat
	}
	t := b[len(b)-trailerLen:]
	offSize, refSize := int(t[6]), int(t[7])
	count := binary.BigEndian.Uint64(t[8:])
	top := binary.BigEndian.Uint64(t[16:])
	table := binary.BigEndian.Uint64(t[24:])
	end := uint64(len(b) - trailerLen)
	if offSize < 1 || offSize > 8 || refSize < 1 || refSize > 8 ||
		table < headerLen || table > end ||
		count > math.MaxUint32 || count > (end-table)/uint64(offSize) || top >= count {
		return Doc{}, ErrFormat
	}
	return Doc{
		buf:     b[:table],
		offsets: b[table : table+count*uint64(offSize)],
		offSize: offSize,
		refSize: refSize,
		count:   int(count),
		top:     Ref(top),
	}, nil
}

// Was reports whether a file that does not begin like a binary property list ends like
// one, or begins with all but one of its first bytes. head and tail are the first and last
// bytes of its size bytes.
func Was(head, tail []byte, size int64) bool {
	if Is(head) || size < headerLen+trailerLen || len(head) < headerLen || len(tail) < trailerLen {
		return false
	}
	wrong := 0 // in the name: other digits are another version
	for i, c := range []byte("bplist") {
		if head[i] != c {
			wrong++
		}
	}
	if wrong == 1 && string(head[6:headerLen]) == "00" {
		return true
	}
	t := tail[len(tail)-trailerLen:]
	offSize, count, top, table := uint64(t[6]), binary.BigEndian.Uint64(t[8:]), binary.BigEndian.Uint64(t[16:]), binary.BigEndian.Uint64(t[24:])
	end := uint64(size) - trailerLen
	return len(bytes.Trim(t[:5], "\x00")) == 0 && offSize >= 1 && offSize <= 8 && t[7] >= 1 && t[7] <= 8 && top < count &&
		table >= headerLen && table < end && count == (end-table)/offSize && (end-table)%offSize == 0
}

// Len returns the number of objects.
func (d *Doc) Len() int { return d.count }

// Top returns the root object.
func (d *Doc) Top() Ref { return d.top }

// Validate checks that every object is inside the list, and that containers refer
// to objects that exist. It takes time in proportion to the size of the list.
func (d *Doc) Validate() error {
	for i := range d.count {
		if !d.valid(Ref(i)) {
			return ErrFormat
		}
	}
	return nil
}

func (d *Doc) valid(r Ref) bool {
	marker, body, ok := d.object(r)
	if !ok {
		return false
	}
	switch low := int(marker & 0x0f); marker >> 4 {
	case 0x0:
		return low == 0 || low == 8 || low == 9 || low == 0xf
	case 0x1:
		return low <= 4 && len(body) >= 1<<low
	case 0x2:
		return (low == 2 || low == 3) && len(body) >= 1<<low
	case 0x3:
		return low == 3 && len(body) >= 8
	case 0x4, 0x5:
		_, ok = sized(low, body, 1)
		return ok
	case 0x6:
		_, ok = sized(low, body, 2)
		return ok
	case 0x8:
		return low < 8 && len(body) > low
	case 0xa, 0xb, 0xc:
		refs, ok := sized(low, body, d.refSize)
		return ok && d.refsExist(refs)
	case 0xd:
		refs, ok := sized(low, body, 2*d.refSize)
		return ok && d.refsExist(refs)
	}
	return false
}

func (d *Doc) refsExist(refs []byte) bool {
	for ; len(refs) >= d.refSize; refs = refs[d.refSize:] {
		if bigEndian(refs[:d.refSize]) >= uint64(d.count) {
			return false
		}
	}
	return true
}

// object returns the marker byte of r and all bytes between this marker and the
// offset table.
func (d *Doc) object(r Ref) (marker byte, body []byte, ok bool) {
	if uint64(r) >= uint64(d.count) {
		return 0, nil, false
	}
	at := int(r) * d.offSize
	off := bigEndian(d.offsets[at : at+d.offSize])
	if off < headerLen || off >= uint64(len(d.buf)) {
		return 0, nil, false
	}
	return d.buf[off], d.buf[off+1:], true
}

// sized returns the content that follows a marker: n units of unit bytes each. low
// is the low four bits of the marker. n is low or, if low is 15, an integer object
// after the marker.
func sized(low int, body []byte, unit int) ([]byte, bool) {
	n := uint64(low)
	if low == 0x0f {
		if len(body) == 0 || body[0]>>4 != 1 || body[0]&0x0f > 3 {
			return nil, false
		}
		width := 1 << (body[0] & 0x0f)
		if len(body) < 1+width {
			return nil, false
		}
		n = bigEndian(body[1 : 1+width])
		body = body[1+width:]
	}
	if n > uint64(len(body))/uint64(unit) {
		return nil, false
	}
	return body[:n*uint64(unit)], true
}

func bigEndian(b []byte) uint64 {
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// Uint returns the integer r. It returns a negative integer as its two's
// complement, since inode numbers above 2^63 are stored in both forms.
func (d *Doc) Uint(r Ref) (uint64, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker>>4 != 1 || marker&0x0f > 4 {
		return 0, false
	}
	width := 1 << (marker & 0x0f)
	if len(body) < width {
		return 0, false
	}
	body = body[:width]
	if width == 16 {
		if high := bigEndian(body[:8]); high != 0 && high != math.MaxUint64 {
			return 0, false
		}
		body = body[8:]
	}
	return bigEndian(body), true
}

// Int returns the integer r. Values of 2^63 and more are reported as absent.
func (d *Doc) Int(r Ref) (int64, bool) {
	v, ok := d.Uint(r)
	if !ok {
		return 0, false
	}
	if marker, body, _ := d.object(r); marker == 0x14 && int64(v) < 0 && bigEndian(body[:8]) == 0 {
		return 0, false
	}
	return int64(v), true
}

// Bool returns the boolean r.
func (d *Doc) Bool(r Ref) (value, ok bool) {
	marker, _, ok := d.object(r)
	return marker == 0x09, ok && (marker == 0x08 || marker == 0x09)
}

// Real returns the floating-point number r.
func (d *Doc) Real(r Ref) (float64, bool) {
	marker, body, ok := d.object(r)
	switch {
	case !ok:
	case marker == 0x22 && len(body) >= 4:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(body))), true
	case marker == 0x23 && len(body) >= 8:
		return math.Float64frombits(binary.BigEndian.Uint64(body)), true
	}
	return 0, false
}

// Date returns the date r in UTC. Dates outside the years 1 to 9999 are
// reported as absent.
func (d *Doc) Date(r Ref) (time.Time, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker != 0x33 || len(body) < 8 {
		return time.Time{}, false
	}
	sec := math.Float64frombits(binary.BigEndian.Uint64(body))
	const (
		epoch = 978307200    // 2001-01-01, when dates in property lists begin to count
		first = -62135596800 // year 1
		last  = 253402300799 // end of year 9999
	)
	if !(sec >= first-epoch && sec <= last-epoch) {
		return time.Time{}, false
	}
	whole, frac := math.Modf(sec)
	return time.Unix(int64(whole)+epoch, int64(frac*1e9)).UTC(), true
}

// Data returns the bytes of the data object r, which are part of the list.
func (d *Doc) Data(r Ref) ([]byte, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker>>4 != 4 {
		return nil, false
	}
	return sized(int(marker&0x0f), body, 1)
}

// UID returns the number in the keyed-archiver reference r.
func (d *Doc) UID(r Ref) (uint64, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker>>4 != 8 || marker&0x0f > 7 {
		return 0, false
	}
	width := int(marker&0x0f) + 1
	if len(body) < width {
		return 0, false
	}
	return bigEndian(body[:width]), true
}

// Append appends the text r to dst as UTF-8. It copies 8-bit text byte for byte,
// and replaces unpaired surrogates in 16-bit text by U+FFFD.
func (d *Doc) Append(dst []byte, r Ref) ([]byte, bool) {
	marker, body, ok := d.object(r)
	if !ok {
		return dst, false
	}
	switch marker >> 4 {
	case 0x5:
		text, ok := sized(int(marker&0x0f), body, 1)
		return append(dst, text...), ok
	case 0x6:
		text, ok := sized(int(marker&0x0f), body, 2)
		for len(text) >= 2 {
			c := rune(binary.BigEndian.Uint16(text))
			text = text[2:]
			if utf16.IsSurrogate(c) {
				pair := rune(utf8.RuneError)
				if len(text) >= 2 {
					pair = utf16.DecodeRune(c, rune(binary.BigEndian.Uint16(text)))
				}
				if pair != utf8.RuneError {
					text = text[2:]
				}
				c = pair
			}
			dst = utf8.AppendRune(dst, c)
		}
		return dst, ok
	}
	return dst, false
}

// String returns the text r as UTF-8, see Append.
func (d *Doc) String(r Ref) (string, bool) {
	b, ok := d.Append(nil, r)
	return string(b), ok
}

// List is the content of an array, or the keys or values of a dictionary.
type List struct {
	refs []byte
	size int
}

// Len returns the number of elements.
func (l List) Len() int {
	if l.size == 0 {
		return 0
	}
	return len(l.refs) / l.size
}

// At returns element i, which must be at least 0 and less than Len.
func (l List) At(i int) Ref {
	v := bigEndian(l.refs[i*l.size : (i+1)*l.size])
	if v > math.MaxUint32 {
		return math.MaxUint32
	}
	return Ref(v)
}

// Array returns the array or set r.
func (d *Doc) Array(r Ref) (List, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker>>4 < 0xa || marker>>4 > 0xc {
		return List{}, false
	}
	refs, ok := sized(int(marker&0x0f), body, d.refSize)
	return List{refs, d.refSize}, ok
}

// Dict is a dictionary: Keys and Values have the same length.
type Dict struct {
	Keys, Values List
}

// Dict returns the dictionary r.
func (d *Doc) Dict(r Ref) (Dict, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker>>4 != 0xd {
		return Dict{}, false
	}
	refs, ok := sized(int(marker&0x0f), body, 2*d.refSize)
	half := len(refs) / 2
	return Dict{List{refs[:half], d.refSize}, List{refs[half:], d.refSize}}, ok
}

// Lookup returns the value of the first key in dict that equals name, which must
// be ASCII.
func (d *Doc) Lookup(dict Dict, name string) (Ref, bool) {
	for i := range dict.Keys.Len() {
		if key, ok := d.ASCII(dict.Keys.At(i)); ok && string(key) == name {
			return dict.Values.At(i), true
		}
	}
	return 0, false
}

// ASCII returns the bytes of the 8-bit text r, which are part of the list. It
// reports 16-bit text as absent.
func (d *Doc) ASCII(r Ref) ([]byte, bool) {
	marker, body, ok := d.object(r)
	if !ok || marker>>4 != 5 {
		return nil, false
	}
	return sized(int(marker&0x0f), body, 1)
}

// Is reports whether b begins like a binary property list.
func Is(b []byte) bool { return bytes.HasPrefix(b, []byte(header)) }
