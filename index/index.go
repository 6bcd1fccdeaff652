// Package index maps chunk IDs to the pack, block and offset that hold them.
//
// Index holds the map in memory and takes at most about 64 bytes a chunk, however many
// packs there are: about 43 for the chunk and 20 for its block. Chunks are stored in
// arrays in the order of their blocks, so a chunk's block is found by binary search and
// its offset by adding lengths. A hash table with slots of 5 bytes finds a chunk by ID.
// File (file.go) is the form in the repository; several files together are the index.
//
// The package knows nothing of snapshots or storage. An Index is safe for
// concurrent use.
package index

import (
	"slices"
	"sort"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
)

// Location says where a chunk is.
type Location struct {
	Pack  pack.ID
	Block BlockRef // a key for caches of blocks
	Start uint32   // where the chunk begins in the block's plaintext
	Size  uint32   // of the chunk
}

// BlockRef identifies a block of one Index. It has no meaning in another Index.
type BlockRef uint32

// Index is the set of known packs and their contents.
type Index struct {
	mu     sync.RWMutex
	packs  []packInfo
	byID   map[pack.ID]uint32 // pack numbers
	blocks segmented[blockInfo]
	ids    segmented[chunk.ID]
	sizes  segmented[uint24] // of chunks
	dicts  []uint32          // runs: a count, then that many references, each a chunk number or, with extraRef, a position in extra
	extra  []chunk.ID        // dictionary chunks that were unknown when they were added
	slots  table

	duplicates []uint32            // chunk numbers of copies that slots do not name
	unusable   map[chunk.ID]reason // known chunks that new snapshots may not rely on
	retired    map[uint32]bool     // pack numbers
}

// packInfo and blockInfo describe packs and blocks. The number of a pack, block or chunk is
// its position in its array of Index.
type packInfo struct {
	id         pack.ID
	size       int64
	kind       pack.Kind
	first, end uint32 // block numbers
}

type blockInfo struct {
	packEnc uint32 // pack number; the upper 4 bits are the encoding
	offset  uint32
	stored  uint32
	first   uint32 // number of its first chunk
	dict    uint32 // 1 + start of its run in dicts; 0 without a dictionary
}

func (b *blockInfo) pack() uint32 { return b.packEnc & (1<<28 - 1) }

func (b *blockInfo) encoding() pack.Encoding { return pack.Encoding(b.packEnc >> 28) }

// uint24 is the length of a chunk.
type uint24 [3]byte

// No chunk is longer than a uint24 can say.
const _ = uint(1<<24 - 1 - pack.MaxBlockSize)

// size returns the length of chunk number n.
func (x *Index) size(n uint32) uint32 {
	b := x.sizes.at(int(n))
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
}

// extraRef is the bit that marks a dictionary's reference as a position in extra.
const extraRef = 1 << 31

// New returns an empty index.
func New() *Index { return &Index{byID: map[pack.ID]uint32{}} }

// Add adds a pack and its chunks. It ignores a pack that is already known. If several
// packs hold a chunk, Lookup returns the first copy until Compact has chosen one. But if
// Compact found the chunk not reusable, or Reject was called, Lookup returns the next copy
// that is added.
func (x *Index) Add(id pack.ID, size int64, h pack.Header) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.byID[id]; ok {
		return
	}
	n := uint32(len(x.packs))
	x.byID[id] = n
	p := packInfo{id: id, size: size, kind: h.Kind, first: uint32(x.blocks.len())}
	for i := range h.Blocks {
		b := &h.Blocks[i]
		x.blocks.append(blockInfo{
			packEnc: n | uint32(b.Encoding)<<28,
			offset:  b.Offset,
			stored:  b.Stored,
			first:   uint32(x.ids.len()),
			dict:    x.addDict(b.Dict),
		})
		for _, c := range b.Chunks {
			x.ids.append(c.ID)
			x.sizes.append(uint24{byte(c.Length), byte(c.Length >> 8), byte(c.Length >> 16)})
			x.insert(uint32(x.ids.len() - 1))
		}
	}
	p.end = uint32(x.blocks.len())
	x.packs = append(x.packs, p)
}

// Agrees reports whether a pack is unknown, or known with this size and header.
func (x *Index) Agrees(id pack.ID, size int64, h *pack.Header) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.byID[id]
	if !ok {
		return true
	}
	p := &x.packs[n]
	if p.size != size || p.kind != h.Kind || int(p.end-p.first) != len(h.Blocks) {
		return false
	}
	for i := range h.Blocks {
		if !x.hasBlock(BlockRef(p.first)+BlockRef(i), &h.Blocks[i]) {
			return false
		}
	}
	return true
}

// hasBlock reports whether block number ref is like b.
func (x *Index) hasBlock(ref BlockRef, b *pack.Block) bool {
	own, end := x.blocks.at(int(ref)), x.end(ref)
	if own.offset != b.Offset || own.stored != b.Stored || own.encoding() != b.Encoding || int(end-own.first) != len(b.Chunks) {
		return false
	}
	for i, c := range b.Chunks {
		if n := own.first + uint32(i); *x.ids.at(int(n)) != c.ID || x.size(n) != c.Length {
			return false
		}
	}
	return slices.Equal(x.dict(own), b.Dict)
}

func (x *Index) addDict(ids []chunk.ID) uint32 {
	if len(ids) == 0 {
		return 0
	}
	start := uint32(len(x.dicts)) + 1
	x.dicts = append(x.dicts, uint32(len(ids)))
	next := uint32(0) // chunks of a dictionary mostly follow each other
	for _, id := range ids {
		ref, ok := next, int(next) < x.ids.len() && *x.ids.at(int(next)) == id
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

// Compact chooses one copy of each chunk and finds chunks that cannot be decoded. It
// also frees memory that was needed only because packs were added in random order. Call
// it after all index files have been added.
func (x *Index) Compact() {
	x.mu.Lock()
	defer x.mu.Unlock()
	var unknown []chunk.ID
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
				x.dicts[i] = extraRef | uint32(len(unknown))
				unknown = append(unknown, id)
			}
		}
		at += n + 1
	}
	x.extra = unknown
	x.resolve()
}

// Retire marks a known pack as about to be removed. Its chunks can still be read,
// but are not reusable. Call it before Compact.
func (x *Index) Retire(id pack.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n, ok := x.byID[id]; ok {
		if x.retired == nil {
			x.retired = map[uint32]bool{}
		}
		x.retired[n] = true
	}
}

// Reject marks a chunk as lost, because the copy of it that Lookup returns cannot be read.
// It counts as unknown until another copy is added.
func (x *Index) Reject(id chunk.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.find(id); !ok {
		return
	}
	if x.unusable == nil {
		x.unusable = map[chunk.ID]reason{}
	}
	x.unusable[id] = lost
}

// Reusable reports whether new snapshots may rely on a chunk: whether it is known and
// can be decoded without retired packs.
func (x *Index) Reusable(id chunk.ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if _, ok := x.find(id); !ok {
		return false
	}
	_, unusable := x.unusable[id]
	return !unusable
}

// Has reports whether a chunk is known and can be decoded.
func (x *Index) Has(id chunk.ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.decodable(id)
	return ok
}

// Size returns the length of a known chunk, in bytes.
func (x *Index) Size(id chunk.ID) (uint32, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.decodable(id)
	if !ok {
		return 0, false
	}
	return x.size(n), true
}

// Lookup returns the location of a known chunk.
func (x *Index) Lookup(id chunk.ID) (Location, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.decodable(id)
	if !ok {
		return Location{}, false
	}
	return x.location(n), true
}

// location returns the location of chunk number n.
func (x *Index) location(n uint32) Location {
	ref := x.blockOf(n)
	b := x.blocks.at(int(ref))
	start := uint32(0)
	for i := b.first; i < n; i++ {
		start += x.size(i)
	}
	return Location{
		Pack:  x.packs[b.pack()].id,
		Block: ref,
		Start: start,
		Size:  x.size(n),
	}
}

// Block returns the pack and the description of a block.
func (x *Index) Block(ref BlockRef) (pack.ID, pack.Block) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	b := x.blocks.at(int(ref))
	p := x.packs[b.pack()]
	out := pack.Block{Offset: b.offset, Stored: b.stored, Encoding: b.encoding(), Dict: x.dict(b)}
	end := x.end(ref)
	out.Chunks = make([]pack.Chunk, 0, end-b.first)
	for i := b.first; i < end; i++ {
		out.Chunks = append(out.Chunks, pack.Chunk{ID: *x.ids.at(int(i)), Length: x.size(i)})
	}
	return p.id, out
}

// dict returns the chunks of a block's dictionary.
func (x *Index) dict(b *blockInfo) []chunk.ID {
	if b.dict == 0 {
		return nil
	}
	run := x.dicts[b.dict-1:]
	out := make([]chunk.ID, 0, run[0])
	for _, ref := range run[1 : 1+run[0]] {
		if ref&extraRef != 0 {
			out = append(out, x.extra[ref&^extraRef])
		} else {
			out = append(out, *x.ids.at(int(ref)))
		}
	}
	return out
}

// Dependencies returns the length of a block's sealed bytes and the chunks of its
// dictionary. A reader needs both to decode the block.
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
		size += int64(x.size(i))
	}
	return size
}

// Single reports whether a block holds one chunk and has no dictionary.
func (x *Index) Single(ref BlockRef) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	b := x.blocks.at(int(ref))
	return b.dict == 0 && x.end(ref) == b.first+1
}

// end returns one more than the number of a block's last chunk.
func (x *Index) end(ref BlockRef) uint32 {
	if int(ref)+1 < x.blocks.len() {
		return x.blocks.at(int(ref) + 1).first
	}
	return uint32(x.ids.len())
}

// Duplicates reports whether any chunk has several copies.
func (x *Index) Duplicates() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.duplicates) > 0
}

// Copies returns the locations of all copies of a chunk, beginning with the one that
// Lookup returns. It scans all duplicates, so call it only when the first copy cannot
// be read.
func (x *Index) Copies(id chunk.ID) []Location {
	first, ok := x.Lookup(id)
	if !ok {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := []Location{first}
	for _, n := range x.duplicates {
		if *x.ids.at(int(n)) != id {
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

// IsMetadata reports whether a pack is known to have metadata.
func (x *Index) IsMetadata(id pack.ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.byID[id]
	return ok && x.packs[n].kind == pack.Metadata
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

// Len returns the number of chunks. It counts every copy.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.ids.len()
}

// Memory returns about how many bytes of memory the index takes.
func (x *Index) Memory() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.ids.memory(32) + x.sizes.memory(3) + x.blocks.memory(20) + cap(x.slots.b) + 4*cap(x.dicts) + 32*cap(x.extra) + 160*len(x.packs)
}

// blockOf returns the block that holds chunk number n.
func (x *Index) blockOf(n uint32) BlockRef {
	after := sort.Search(x.blocks.len(), func(i int) bool { return x.blocks.at(i).first > n })
	return BlockRef(after - 1)
}
