package index

import (
	"encoding/binary"
	"math/bits"

	"github.com/snap-backup/snap/chunk"
)

// table finds the number of a chunk. It is a hash table with open addressing. A slot has
// the number of a chunk plus 1, little-endian, and a byte of the chunk's ID. This byte
// tells nearly all other chunks apart without reading their IDs, which are far away in
// memory: that would take most of the time of loading a large index.
type table struct {
	b    []byte
	used int // number of filled slots
}

const (
	slotSize = 5
	tagByte  = 8 // of an ID; slot uses the bytes before it
)

// len returns the number of slots.
func (t *table) len() int { return len(t.b) / slotSize }

// at returns the number of the chunk in slot s, plus 1, or 0 if the slot is empty, and the
// byte of the chunk's ID.
func (t *table) at(s int) (n uint32, tag byte) {
	b := t.b[s*slotSize : s*slotSize+slotSize]
	return binary.LittleEndian.Uint32(b), b[4]
}

// set fills slot s.
func (t *table) set(s int, n uint32, tag byte) {
	b := t.b[s*slotSize : s*slotSize+slotSize]
	binary.LittleEndian.PutUint32(b, n)
	b[4] = tag
}

// search returns the slot of a chunk and the chunk's number plus 1, or the empty slot
// where it belongs and 0. The table must have an empty slot.
func (x *Index) search(id *chunk.ID) (s int, n uint32) {
	size := x.slots.len()
	for s = slot(id, size); ; {
		n, tag := x.slots.at(s)
		if n == 0 || tag == id[tagByte] && *x.ids.at(int(n - 1)) == *id {
			return s, n
		}
		if s++; s == size {
			s = 0
		}
	}
}

// find returns the number of the copy that the table names for a chunk.
func (x *Index) find(id chunk.ID) (uint32, bool) {
	if x.slots.used == 0 {
		return 0, false
	}
	_, n := x.search(&id)
	return n - 1, n > 0
}

// insert adds chunk number n to the table, or to duplicates if the table already has
// its ID.
func (x *Index) insert(n uint32) {
	// A load of at most 0.92 keeps probes short enough: most of them read only the table.
	// Growing by a fifth instead of doubling keeps memory within the limit in the package
	// comment, even right after growing.
	if (x.slots.used+1)*25 > x.slots.len()*23 {
		x.grow(max(1024, x.slots.len()+x.slots.len()/5))
	}
	id := x.ids.at(int(n))
	s, m := x.search(id)
	if m == 0 {
		x.slots.set(s, n+1, id[tagByte])
		x.slots.used++
		return
	}
	if _, unusable := x.unusable[*id]; unusable {
		delete(x.unusable, *id)
		x.slots.set(s, n+1, id[tagByte])
		n = m - 1
	}
	x.duplicates = append(x.duplicates, n)
}

// replace makes the table name another copy of a chunk.
func (x *Index) replace(id chunk.ID, n uint32) {
	if s, m := x.search(&id); m > 0 {
		x.slots.set(s, n+1, id[tagByte])
	}
}

func (x *Index) grow(size int) {
	old := x.slots
	x.slots = table{make([]byte, size*slotSize), old.used}
	for from := range old.len() {
		n, tag := old.at(from)
		if n == 0 {
			continue
		}
		s := slot(x.ids.at(int(n-1)), size)
		for m, _ := x.slots.at(s); m != 0; m, _ = x.slots.at(s) {
			if s++; s == size {
				s = 0
			}
		}
		x.slots.set(s, n, tag)
	}
}

// slot maps an ID to one of n slots. IDs are uniformly distributed.
func slot(id *chunk.ID, n int) int {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(id[:8]), uint64(n))
	return int(hi)
}
