package index

import "github.com/snap-backup/snap/chunk"

// ChunkSet is a set of chunks of one Index. It has a bit for each copy of a chunk. A
// copy that was added stays in the set even if Compact later chooses another copy. A
// ChunkSet is not safe for concurrent use.
type ChunkSet struct {
	x    *Index
	bits []uint64
}

// NewChunkSet returns an empty set.
func (x *Index) NewChunkSet() *ChunkSet { return &ChunkSet{x: x} }

// Add adds the copy that Lookup returns for a chunk. added is false if the set already
// has this copy. ok is false if the chunk is not known.
func (s *ChunkSet) Add(id chunk.ID) (loc Location, added, ok bool) {
	s.x.mu.RLock()
	defer s.x.mu.RUnlock()
	n, ok := s.x.decodable(id)
	if !ok {
		return Location{}, false, false
	}
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, (s.x.ids.len()+63)/64-len(s.bits))...)
	}
	if s.bits[word]&bit != 0 {
		return Location{}, false, true
	}
	s.bits[word] |= bit
	return s.x.location(n), true, true
}

// Has reports whether the set has the copy that Lookup returns for a chunk.
func (s *ChunkSet) Has(id chunk.ID) bool {
	s.x.mu.RLock()
	defer s.x.mu.RUnlock()
	n, ok := s.x.decodable(id)
	return ok && s.has(n)
}

// Block reports for each chunk of a block whether it is in the set. length is the
// plaintext length of the chunks in the set, total the plaintext length of the block,
// in bytes.
func (s *ChunkSet) Block(ref BlockRef) (members []bool, length, total int64) {
	s.x.mu.RLock()
	defer s.x.mu.RUnlock()
	first, end := s.x.blocks.at(int(ref)).first, s.x.end(ref)
	members = make([]bool, 0, end-first)
	for n := first; n < end; n++ {
		size := int64(s.x.size(n))
		total += size
		has := s.has(n)
		if has {
			length += size
		}
		members = append(members, has)
	}
	return members, length, total
}

// Any reports whether the set has at least one chunk of a block.
func (s *ChunkSet) Any(ref BlockRef) bool {
	s.x.mu.RLock()
	defer s.x.mu.RUnlock()
	for n := s.x.blocks.at(int(ref)).first; n < s.x.end(ref); n++ {
		if s.has(n) {
			return true
		}
	}
	return false
}

func (s *ChunkSet) has(n uint32) bool {
	word := int(n / 64)
	return word < len(s.bits) && s.bits[word]&(1<<(n%64)) != 0
}
