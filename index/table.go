package index

import (
	"encoding/binary"
	"math/bits"

	"github.com/snap-backup/snap/chunk"
)

// find returns the number of the copy that the table names for a chunk.
func (x *Index) find(id chunk.ID) (uint32, bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	for s := slot(id, len(x.slots)); ; {
		n := x.slots[s]
		if n == 0 {
			return 0, false
		}
		if x.chunks.at(int(n-1)).id == id {
			return n - 1, true
		}
		if s++; s == len(x.slots) {
			s = 0
		}
	}
}

// insert adds chunk number n to the table, or to duplicates if the table already has
// its ID.
func (x *Index) insert(n uint32) {
	// A load of at most 0.85 keeps probes short. Growing by a quarter instead of
	// doubling keeps memory within the limit in the package comment, even right after
	// growing.
	if (x.used+1)*20 > len(x.slots)*17 {
		x.grow(max(1024, len(x.slots)+len(x.slots)/4))
	}
	id := x.chunks.at(int(n)).id
	for s := slot(id, len(x.slots)); ; {
		m := x.slots[s]
		if m == 0 {
			x.slots[s] = n + 1
			x.used++
			return
		}
		if x.chunks.at(int(m-1)).id == id {
			if _, unusable := x.unusable[id]; unusable {
				delete(x.unusable, id)
				x.slots[s], n = n+1, m-1
			}
			x.duplicates = append(x.duplicates, n)
			return
		}
		if s++; s == len(x.slots) {
			s = 0
		}
	}
}

// replace makes the table name another copy of a chunk.
func (x *Index) replace(id chunk.ID, n uint32) {
	for s := slot(id, len(x.slots)); x.slots[s] != 0; {
		if x.chunks.at(int(x.slots[s]-1)).id == id {
			x.slots[s] = n + 1
			return
		}
		if s++; s == len(x.slots) {
			s = 0
		}
	}
}

func (x *Index) grow(size int) {
	old := x.slots
	x.slots = make([]uint32, size)
	for _, n := range old {
		if n == 0 {
			continue
		}
		s := slot(x.chunks.at(int(n-1)).id, size)
		for x.slots[s] != 0 {
			if s++; s == size {
				s = 0
			}
		}
		x.slots[s] = n
	}
}

// slot maps an ID to one of n slots. IDs are uniformly distributed.
func slot(id chunk.ID, n int) int {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(id[:8]), uint64(n))
	return int(hi)
}
