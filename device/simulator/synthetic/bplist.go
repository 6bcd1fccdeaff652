package synthetic

import (
	"encoding/binary"
	"math/bits"
)

// This is a small writer of binary property lists. It writes dictionaries in the order
// in which devices write them. A general property list library does not keep this
// order.

type node any

// Types of nodes. Further nodes are of the types uint64 (an integer) and string.
type (
	plistUID  byte
	plistData []byte
	plistList []node
	plistDict []plistPair
	// plistOwn is a string that gets an object of its own, even if equal strings exist.
	plistOwn string
	// plistLong is an integer that is stored in 64 bits. Only equal values of this type
	// share an object with it.
	plistLong uint64
)

type plistPair struct {
	key   string
	value node
}

// plistWriter collects the objects of a property list. It numbers them depth first. The
// keys of a dictionary come before its values. Equal integers become one object, and
// so do equal strings.
type plistWriter struct {
	objects []node
	refs    map[node]int
	inside  map[int][]int // for each list or dictionary, the numbers of its members
}

// marshalPlist encodes a property list of fewer than 256 objects.
func marshalPlist(root node) []byte {
	w := &plistWriter{refs: map[node]int{}, inside: map[int][]int{}}
	w.add(root)
	out := []byte("bplist00")
	offsets := make([]int, len(w.objects))
	for i, o := range w.objects {
		offsets[i] = len(out)
		out = w.appendObject(out, i, o)
	}
	table := len(out)
	width := 1
	if table > 0xff {
		width = 2
	}
	for _, o := range offsets {
		if width == 2 {
			out = append(out, byte(o>>8))
		}
		out = append(out, byte(o))
	}
	out = append(out, 0, 0, 0, 0, 0, 0, byte(width), 1)
	out = binary.BigEndian.AppendUint64(out, uint64(len(w.objects)))
	out = binary.BigEndian.AppendUint64(out, 0)
	return binary.BigEndian.AppendUint64(out, uint64(table))
}

func (w *plistWriter) add(n node) int {
	switch n.(type) {
	case uint64, plistLong, string:
		if i, ok := w.refs[n]; ok {
			return i
		}
		w.refs[n] = len(w.objects)
	}
	i := len(w.objects)
	w.objects = append(w.objects, n)
	var members []int
	switch v := n.(type) {
	case plistList:
		for _, m := range v {
			members = append(members, w.add(m))
		}
	case plistDict:
		for _, p := range v {
			members = append(members, w.add(p.key))
		}
		for _, p := range v {
			members = append(members, w.add(p.value))
		}
	default:
		return i
	}
	w.inside[i] = members
	return i
}

func (w *plistWriter) appendObject(out []byte, i int, n node) []byte {
	switch v := n.(type) {
	case uint64:
		return appendPlistInt(out, v)
	case plistLong:
		return appendPlistInt(out, uint64(v))
	case plistUID:
		return append(out, 0x80, byte(v))
	case plistData:
		return append(appendPlistHead(out, 0x40, len(v)), v...)
	case plistOwn:
		return appendPlistString(out, string(v))
	case string:
		return appendPlistString(out, v)
	case plistList:
		out = appendPlistHead(out, 0xa0, len(v))
	case plistDict:
		out = appendPlistHead(out, 0xd0, len(v))
	}
	for _, m := range w.inside[i] {
		out = append(out, byte(m))
	}
	return out
}

func appendPlistInt(out []byte, v uint64) []byte {
	switch n := bits.Len64(v); {
	case n <= 8:
		return append(out, 0x10, byte(v))
	case n <= 16:
		return binary.BigEndian.AppendUint16(append(out, 0x11), uint16(v))
	case n <= 32:
		return binary.BigEndian.AppendUint32(append(out, 0x12), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(out, 0x13), v)
}

func appendPlistHead(out []byte, kind byte, n int) []byte {
	if n < 15 {
		return append(out, kind|byte(n))
	}
	return appendPlistInt(append(out, kind|15), uint64(n))
}

// appendPlistString encodes a string as ASCII if possible, otherwise as UTF-16.
func appendPlistString(out []byte, s string) []byte {
	for i := range len(s) {
		if s[i] >= 0x80 {
			units := utf16Units(s)
			out = appendPlistHead(out, 0x60, len(units))
			for _, u := range units {
				out = binary.BigEndian.AppendUint16(out, u)
			}
			return out
		}
	}
	return append(appendPlistHead(out, 0x50, len(s)), s...)
}
