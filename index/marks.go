package index

import "github.com/snap-backup/snap/chunk"

// ChunkSet is a set of chunks of one Index, a bit for each copy. What was marked
// stays marked when Compact later prefers another copy. It may not be used by
// several goroutines at once.
type ChunkSet struct {
	x    *Index
	bits []uint64
}

// NewChunkSet returns an empty set.
func (x *Index) NewChunkSet() *ChunkSet { return &ChunkSet{x: x} }

// Add marks the copy of a chunk that Lookup gives. added is false if it was
// marked before, ok if the chunk is not known.
func (m *ChunkSet) Add(id chunk.ID) (loc Location, added, ok bool) {
	m.x.mu.RLock()
	defer m.x.mu.RUnlock()
	n, ok := m.x.known(id)
	if !ok {
		return Location{}, false, false
	}
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(m.bits) {
		m.bits = append(m.bits, make([]uint64, (m.x.chunks.len()+63)/64-len(m.bits))...)
	}
	if m.bits[word]&bit != 0 {
		return Location{}, false, true
	}
	m.bits[word] |= bit
	return m.x.location(n), true, true
}

// Has reports whether the copy of a chunk is marked that Lookup gives.
func (m *ChunkSet) Has(id chunk.ID) bool {
	m.x.mu.RLock()
	defer m.x.mu.RUnlock()
	n, ok := m.x.known(id)
	return ok && m.has(n)
}

// Block reports which chunks of a block are marked, and the length of these
// and of all, in bytes of plaintext.
func (m *ChunkSet) Block(ref BlockRef) (marked []bool, length, of int64) {
	m.x.mu.RLock()
	defer m.x.mu.RUnlock()
	first, end := m.x.blocks.at(int(ref)).first, m.x.end(ref)
	marked = make([]bool, 0, end-first)
	for n := first; n < end; n++ {
		size := int64(m.x.chunks.at(int(n)).size)
		of += size
		is := m.has(n)
		if is {
			length += size
		}
		marked = append(marked, is)
	}
	return marked, length, of
}

// Any reports whether a chunk of a block is marked.
func (m *ChunkSet) Any(ref BlockRef) bool {
	m.x.mu.RLock()
	defer m.x.mu.RUnlock()
	for n := m.x.blocks.at(int(ref)).first; n < m.x.end(ref); n++ {
		if m.has(n) {
			return true
		}
	}
	return false
}

func (m *ChunkSet) has(n uint32) bool {
	word := int(n / 64)
	return word < len(m.bits) && m.bits[word]&(1<<(n%64)) != 0
}
