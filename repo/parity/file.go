package parity

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack/binread"
)

const (
	magic   = "snappa01"
	version = 1
	// SegmentSize is the length of a segment, in bytes: what a flipped bit costs
	// until it is healed.
	SegmentSize = 64 << 10
	minSegment  = 64
	maxSegment  = 1 << 20
	// MaxMembers bounds the files of a group, and maxParity the segments that
	// guard a row; together they are what the code can take.
	MaxMembers = 200
	maxParity  = 50
	// maxMember bounds a file of a group, in bytes: as long as a pack may be.
	maxMember = 128 << 20
	sumSize   = 16
	// maxHeader bounds a header, in bytes.
	maxHeader = 64 << 20
	frame     = 4 + 32 // its length and its hash
)

// ErrDamaged says that bytes are not what this package writes.
var ErrDamaged = errors.New("damaged parity file")

// sum is the first 16 bytes of the BLAKE3-256 of a segment.
type sum [sumSize]byte

func sumOf(b []byte) sum {
	h := blake.Sum(b)
	return sum(h[:sumSize])
}

// member is a file that a group guards.
type member struct {
	kind byte
	id   [32]byte
	size int64
	sums []sum // of its segments
}

// Header describes a group: what it guards, and what every segment is.
type Header struct {
	percent int // hundredths of a percent that the user asked for
	segment int // bytes
	parity  int // segments that guard a row
	members []member
	sums    []sum // of the parity segments, row by row
}

// length is that of the longest member, in bytes.
func (h *Header) length() int64 {
	n := int64(0)
	for i := range h.members {
		n = max(n, h.members[i].size)
	}
	return n
}

func segments(size int64, segment int) int { return int((size + int64(segment) - 1) / int64(segment)) }

// rows is the number of rows.
func (h *Header) rows() int { return segments(h.length(), h.segment) }

// width is the length of a row's segments, in bytes: those of the last row may be
// shorter.
func (h *Header) width(row int) int {
	return int(min(int64(h.segment), h.length()-int64(row)*int64(h.segment)))
}

// append appends the header's form in the file.
func (h *Header) append(b []byte) []byte {
	b = append(b, version)
	b = binary.AppendUvarint(b, uint64(h.percent))
	b = binary.AppendUvarint(b, uint64(h.segment))
	b = binary.AppendUvarint(b, uint64(h.parity))
	b = binary.AppendUvarint(b, uint64(len(h.members)))
	for i := range h.members {
		m := &h.members[i]
		b = append(b, m.kind)
		b = append(b, m.id[:]...)
		b = binary.AppendUvarint(b, uint64(m.size))
		for _, s := range m.sums {
			b = append(b, s[:]...)
		}
	}
	for _, s := range h.sums {
		b = append(b, s[:]...)
	}
	return b
}

// ParseHeader reads a header. All of b must be used up.
func ParseHeader(b []byte) (*Header, error) {
	r := binread.NewReader(b)
	if v := r.Byte(); v != version {
		return nil, fmt.Errorf("%w: header version %d", ErrDamaged, v)
	}
	number := func(limit int) int {
		v := r.Uvarint()
		if v > uint64(limit) {
			r.Fail("number %d is above %d", v, limit)
			return 0
		}
		return int(v)
	}
	h := &Header{percent: number(100_00), segment: number(maxSegment), parity: number(maxParity)}
	n := number(MaxMembers)
	if r.Err() == nil && (h.segment < minSegment || n > 0 && h.parity < 1) {
		r.Fail("impossible numbers")
	}
	for i := 0; i < n && r.Err() == nil; i++ {
		m := member{kind: r.Byte()}
		copy(m.id[:], r.Take(32))
		m.size = int64(number(maxMember))
		if r.Err() == nil && (int(m.kind) >= len(kinds) || m.size < 1) {
			r.Fail("a file of kind %d with %d bytes", m.kind, m.size)
		}
		if r.Err() == nil {
			m.sums = sums(r, segments(m.size, h.segment))
		}
		h.members = append(h.members, m)
	}
	if r.Err() == nil {
		h.sums = sums(r, h.rows()*h.parity)
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return h, nil
}

func sums(r *binread.Reader, n int) []sum {
	b := r.Take(n * sumSize)
	if b == nil {
		return nil
	}
	out := make([]sum, n)
	for i := range out {
		out[i] = sum(b[i*sumSize:])
	}
	return out
}

// encode returns the bytes of a file: the header stands at both ends, so that no
// one damaged place makes the rest useless.
func (h *Header) encode(data []byte) []byte {
	head := h.append(nil)
	hash := blake.Sum(head)
	b := make([]byte, 0, len(magic)+2*(len(head)+frame)+len(data))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = append(append(b, head...), hash[:]...)
	b = append(b, data...)
	b = append(append(b, head...), hash[:]...)
	return binary.LittleEndian.AppendUint32(b, uint32(len(head)))
}

// open reads a header and the hash behind it.
func open(b []byte) (*Header, error) {
	if len(b) < 32 {
		return nil, fmt.Errorf("%w: ends early", ErrDamaged)
	}
	head, want := b[:len(b)-32], b[len(b)-32:]
	if hash := blake.Sum(head); string(hash[:]) != string(want) {
		return nil, fmt.Errorf("%w: header has another hash", ErrDamaged)
	}
	return ParseHeader(head)
}
