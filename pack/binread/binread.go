// Package binread reads numbers, texts and IDs from the binary structures of a
// repository: pack headers, index files, tree nodes.
//
// A Reader keeps its first error and returns zero values after it, so a parser can
// check for errors once at the end. A Reader never returns a count of more items than
// fit in the remaining bytes. This limits how much memory a parser allocates.
package binread

import (
	"encoding/binary"
	"fmt"

	"github.com/snap-backup/snap/chunk"
)

// Reader reads from a byte slice.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a reader of b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Fail sets the error unless one is set already.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// End sets an error if bytes remain, and returns the first error.
func (r *Reader) End() error {
	if r.err == nil && len(r.b) > 0 {
		r.Fail("%d bytes left over", len(r.b))
	}
	return r.err
}

// Take returns the next n bytes, without copying them.
func (r *Reader) Take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.Fail("ends early")
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// Byte returns the next byte.
func (r *Reader) Byte() byte {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint64 returns a number of 8 bytes, little-endian.
func (r *Reader) Uint64() uint64 {
	if b := r.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Uvarint returns an unsigned number of 1 to 10 bytes.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err != nil || n <= 0 {
		r.Fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Varint returns a signed number of 1 to 10 bytes.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.b)
	if r.err != nil || n <= 0 {
		r.Fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// UpTo returns an unsigned number of at most limit.
func (r *Reader) UpTo(limit uint64, what string) uint64 {
	v := r.Uvarint()
	if v > limit {
		r.Fail("%s %d is over %d", what, v, limit)
		return 0
	}
	return v
}

// Count returns a number of items. Each item takes at least size bytes.
func (r *Reader) Count(size int) int {
	v := r.Uvarint()
	if v > uint64(len(r.b)/size) {
		r.Fail("%d items do not fit into %d bytes", v, len(r.b))
		return 0
	}
	return int(v)
}

// String returns a text of at most limit bytes.
func (r *Reader) String(limit int) string {
	return string(r.Take(int(r.UpTo(uint64(limit), "text length"))))
}

// ID returns a chunk ID.
func (r *Reader) ID() chunk.ID {
	var id chunk.ID
	copy(id[:], r.Take(len(id)))
	return id
}

// IDs returns a list of at most limit chunk IDs, nil if it is empty.
func (r *Reader) IDs(limit int) []chunk.ID {
	n := r.Count(len(chunk.ID{}))
	if n > limit {
		r.Fail("%d IDs are over %d", n, limit)
		return nil
	}
	if n == 0 {
		return nil
	}
	ids := make([]chunk.ID, n)
	for i := range ids {
		ids[i] = r.ID()
	}
	return ids
}
