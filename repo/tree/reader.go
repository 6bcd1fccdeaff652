package tree

import (
	"encoding/binary"
	"fmt"

	"github.com/snap-backup/snap/chunk"
)

// reader takes values off a node and remembers the first error; after it,
// every value is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail("ends early")
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err != nil || n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.err != nil || n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string(limit int) string {
	n := r.uvarint()
	if n > uint64(limit) {
		r.fail("string of %d bytes", n)
		return ""
	}
	return string(r.take(int(n)))
}

// count reads the number of items that take at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail("%d items do not fit into %d bytes", n, len(r.b))
		return 0
	}
	return int(n)
}

func (r *reader) id() chunk.ID {
	var id chunk.ID
	copy(id[:], r.take(len(id)))
	return id
}

func (r *reader) ids(limit int) []chunk.ID {
	n := r.count(len(chunk.ID{}))
	if n > limit {
		r.fail("%d IDs", n)
		return nil
	}
	if n == 0 {
		return nil
	}
	ids := make([]chunk.ID, n)
	for i := range ids {
		ids[i] = r.id()
	}
	return ids
}
