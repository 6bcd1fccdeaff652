// Package index says where each chunk lies: chunk ID to pack, block and place.
//
// Index holds it in memory in at most about 64 bytes a chunk, whatever the
// number of packs: chunks lie in arrays in the order of their blocks, so a
// chunk's block is found by search and its place by adding lengths, and a
// table of 4-byte slots finds a chunk by ID. File (file.go) is its form in the
// repository; several files together are the index.
//
// The index knows nothing of keys, snapshots or storage. It may be used by
// several goroutines.
package index

import (
	"encoding/binary"
	"math/bits"
	"sort"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// Location is where a chunk lies.
type Location struct {
	Pack  pack.ID
	Block BlockRef // equal for chunks of one block; the key for a cache of blocks
	Start uint32   // of the chunk in the block's plaintext
	Size  uint32   // of the chunk
}

// BlockRef names a block inside one Index. It means nothing to another one.
type BlockRef uint32

// Index is the set of known packs and what they hold.
type Index struct {
	mu     sync.RWMutex
	packs  []packEntry
	byID   map[pack.ID]uint32
	blocks segmented[block]
	chunks segmented[entry]
	dicts  []uint32              // runs of a count and that many references
	extra  []chunk.ID            // dictionary chunks whose own pack was not known yet
	slots  []uint32              // entry number + 1; open addressing
	used   int                   // filled slots
	twice  []uint32              // chunks that another pack has, too, and that slots do not name
	weak   map[chunk.ID]weakness // chunks that are there but cannot be relied on
	doomed map[uint32]bool       // packs that are about to go
}

type packEntry struct {
	id         pack.ID
	size       int64
	kind       pack.Kind
	first, end uint32 // block numbers
}

type block struct {
	packEnc uint32 // pack number, encoding in the upper 4 bits
	offset  uint32
	stored  uint32
	first   uint32 // number of its first chunk
	dict    uint32 // 1 + start of its run in dicts; 0 without
}

type entry struct {
	id   chunk.ID
	size uint32
}

// extraRef marks a dictionary reference into extra.
const extraRef = 1 << 31

// New returns an empty index.
func New() *Index { return &Index{byID: map[pack.ID]uint32{}} }

// Add makes the chunks of a pack known. A pack that is already known is
// ignored. Of a chunk that several packs hold, the
// first one counts until Compact decides.
func (x *Index) Add(id pack.ID, size int64, h pack.Header) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.byID[id]; ok {
		return
	}
	n := uint32(len(x.packs))
	x.byID[id] = n
	p := packEntry{id: id, size: size, kind: h.Kind, first: uint32(x.blocks.len())}
	for i := range h.Blocks {
		b := &h.Blocks[i]
		x.blocks.append(block{
			packEnc: n | uint32(b.Encoding)<<28,
			offset:  b.Offset,
			stored:  b.Stored,
			first:   uint32(x.chunks.len()),
			dict:    x.addDict(b.Dict),
		})
		for _, c := range b.Chunks {
			x.chunks.append(entry{id: c.ID, size: c.Length})
			x.insert(uint32(x.chunks.len() - 1))
		}
	}
	p.end = uint32(x.blocks.len())
	x.packs = append(x.packs, p)
}

func (x *Index) addDict(ids []chunk.ID) uint32 {
	if len(ids) == 0 {
		return 0
	}
	start := uint32(len(x.dicts)) + 1
	x.dicts = append(x.dicts, uint32(len(ids)))
	next := uint32(0) // chunks of a dictionary mostly lie side by side
	for _, id := range ids {
		ref, ok := next, int(next) < x.chunks.len() && x.chunks.at(int(next)).id == id
		if !ok {
			ref, ok = x.find(id)
		}
		next = ref + 1
		if !ok {
			ref = extraRef | uint32(len(x.extra))
			x.extra = append(x.extra, id)
		}
		x.dicts = append(x.dicts, ref)
	}
	return start
}

// Compact gives back memory that loading many packs in random order took. Call
// it when all index files have been added.
func (x *Index) Compact() {
	x.mu.Lock()
	defer x.mu.Unlock()
	var left []chunk.ID
	for at := 0; at < len(x.dicts); {
		n := int(x.dicts[at])
		for i := at + 1; i <= at+n; i++ {
			ref := x.dicts[i]
			if ref&extraRef == 0 {
				continue
			}
			id := x.extra[ref&^extraRef]
			if found, ok := x.find(id); ok {
				x.dicts[i] = found
			} else {
				x.dicts[i] = extraRef | uint32(len(left))
				left = append(left, id)
			}
		}
		at += n + 1
	}
	x.extra = left
	x.settle()
}

// Retire says that a known pack is about to be removed. Its chunks can be read as
// long as it is there, but nothing new may rely on them. Call it before
// Compact.
func (x *Index) Retire(id pack.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n, ok := x.byID[id]; ok {
		if x.doomed == nil {
			x.doomed = map[uint32]bool{}
		}
		x.doomed[n] = true
	}
}

// Reusable reports whether a chunk is known and something new may rely on it: it
// can be read without any pack that is about to go.
func (x *Index) Reusable(id chunk.ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if _, ok := x.find(id); !ok {
		return false
	}
	_, weak := x.weak[id]
	return !weak
}

// Has reports whether a chunk is known.
func (x *Index) Has(id chunk.ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.known(id)
	return ok
}

// Size returns the length of a known chunk, in bytes.
func (x *Index) Size(id chunk.ID) (uint32, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.known(id)
	if !ok {
		return 0, false
	}
	return x.chunks.at(int(n)).size, true
}

// Lookup returns where a chunk lies.
func (x *Index) Lookup(id chunk.ID) (Location, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.known(id)
	if !ok {
		return Location{}, false
	}
	return x.location(n), true
}

// location returns where chunk number n lies.
func (x *Index) location(n uint32) Location {
	ref := x.blockOf(n)
	b := x.blocks.at(int(ref))
	start := uint32(0)
	for i := b.first; i < n; i++ {
		start += x.chunks.at(int(i)).size
	}
	return Location{
		Pack:  x.packs[b.packEnc&(1<<28-1)].id,
		Block: ref,
		Start: start,
		Size:  x.chunks.at(int(n)).size,
	}
}

// Block returns the pack and the description of a block.
func (x *Index) Block(ref BlockRef) (pack.ID, pack.Block) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	b := x.blocks.at(int(ref))
	p := x.packs[b.packEnc&(1<<28-1)]
	out := pack.Block{Offset: b.offset, Stored: b.stored, Encoding: pack.Encoding(b.packEnc >> 28), Dict: x.dict(b)}
	end := x.end(ref)
	out.Chunks = make([]pack.Chunk, 0, end-b.first)
	for i := b.first; i < end; i++ {
		e := x.chunks.at(int(i))
		out.Chunks = append(out.Chunks, pack.Chunk{ID: e.id, Length: e.size})
	}
	return p.id, out
}

// dict returns the chunks of a block's dictionary.
func (x *Index) dict(b *block) []chunk.ID {
	if b.dict == 0 {
		return nil
	}
	run := x.dicts[b.dict-1:]
	out := make([]chunk.ID, 0, run[0])
	for _, ref := range run[1 : 1+run[0]] {
		if ref&extraRef != 0 {
			out = append(out, x.extra[ref&^extraRef])
		} else {
			out = append(out, x.chunks.at(int(ref)).id)
		}
	}
	return out
}

// Dependencies returns what reading a block takes: its sealed bytes and the chunks of
// its dictionary.
func (x *Index) Dependencies(ref BlockRef) (stored uint32, dict []chunk.ID) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	b := x.blocks.at(int(ref))
	return b.stored, x.dict(b)
}

// PlainSize returns the length of a block's plaintext, in bytes.
func (x *Index) PlainSize(ref BlockRef) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	size := int64(0)
	for i := x.blocks.at(int(ref)).first; i < x.end(ref); i++ {
		size += int64(x.chunks.at(int(i)).size)
	}
	return size
}

// Single reports whether a block is a single chunk that needs no dictionary.
func (x *Index) Single(ref BlockRef) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	b := x.blocks.at(int(ref))
	return b.dict == 0 && x.end(ref) == b.first+1
}

// end returns the number behind that of a block's last chunk.
func (x *Index) end(ref BlockRef) uint32 {
	if int(ref)+1 < x.blocks.len() {
		return x.blocks.at(int(ref) + 1).first
	}
	return uint32(x.chunks.len())
}

// Duplicates reports whether a chunk lies in several places.
func (x *Index) Duplicates() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.twice) > 0
}

// Copies returns all places where a chunk lies, the one that Lookup gives
// first. It looks through all chunks that lie in several places: it is for when
// the first fails.
func (x *Index) Copies(id chunk.ID) []Location {
	first, ok := x.Lookup(id)
	if !ok {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := []Location{first}
	for _, n := range x.twice {
		if x.chunks.at(int(n)).id != id {
			continue
		}
		if loc := x.location(n); loc != first {
			out = append(out, loc)
		}
	}
	return out
}

// Pack is a known pack.
type Pack struct {
	ID     pack.ID
	Size   int64 // bytes of the file
	Kind   pack.Kind
	Blocks []BlockRef
}

// Pack returns a known pack.
func (x *Index) Pack(id pack.ID) (Pack, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.byID[id]
	if !ok {
		return Pack{}, false
	}
	return x.pack(n), true
}

// Packs returns all known packs, in the order in which they were added.
func (x *Index) Packs() []Pack {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]Pack, len(x.packs))
	for i := range x.packs {
		out[i] = x.pack(uint32(i))
	}
	return out
}

func (x *Index) pack(n uint32) Pack {
	p := &x.packs[n]
	out := Pack{ID: p.id, Size: p.size, Kind: p.kind, Blocks: make([]BlockRef, 0, p.end-p.first)}
	for b := p.first; b < p.end; b++ {
		out.Blocks = append(out.Blocks, BlockRef(b))
	}
	return out
}

// Len returns the number of chunks, counting one that lies in several packs
// each time.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.chunks.len()
}

// Memory returns the bytes of memory that the index holds, near enough to
// watch a limit.
func (x *Index) Memory() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.chunks.memory(36) + x.blocks.memory(20) + 4*(cap(x.dicts)+cap(x.slots)) + 32*cap(x.extra) + 160*len(x.packs)
}

// blockOf finds the block that holds chunk number n.
func (x *Index) blockOf(n uint32) BlockRef {
	after := sort.Search(x.blocks.len(), func(i int) bool { return x.blocks.at(i).first > n })
	return BlockRef(after - 1)
}

// find returns the number of the first chunk with this ID.
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

// insert enters chunk number n into the table unless its ID is there.
func (x *Index) insert(n uint32) {
	// A fill of at most 0.85 keeps runs short; growing by a quarter, not to the
	// double, keeps the promise of the package comment just after growing, too.
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
			if _, weak := x.weak[id]; weak {
				delete(x.weak, id)
				x.slots[s], n = n+1, m-1
			}
			x.twice = append(x.twice, n)
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

// slot maps an ID to one of n slots. IDs are uniform already.
func slot(id chunk.ID, n int) int {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(id[:8]), uint64(n))
	return int(hi)
}

// segmented is an array that grows without copying and without slack of more
// than one segment.
type segmented[T any] struct {
	segs [][]T
	n    int
}

// segmentSize makes segments of both element types fill whole pages of memory.
const segmentSize = 1 << 11

func (s *segmented[T]) len() int { return s.n }

func (s *segmented[T]) at(i int) *T { return &s.segs[i/segmentSize][i%segmentSize] }

func (s *segmented[T]) append(v T) {
	if s.n == len(s.segs)*segmentSize {
		s.segs = append(s.segs, make([]T, segmentSize))
	}
	s.n++
	*s.at(s.n - 1) = v
}

func (s *segmented[T]) memory(size int) int { return len(s.segs) * segmentSize * size }
