// Package blake computes BLAKE3-256 hashes:
//
//   - Hasher hashes many byte slices, such as chunks
//   - Sum hashes one byte slice, such as a repository file
//   - NewStream hashes content that is read in pieces
//   - DeriveKey derives keys
//
// It is the only package that imports lukechampine.com/blake3, apart from tests
// that compare hashes. All functions return the same hashes as that package.
// Hasher and Sum use its vector code without goroutines. The hashes of that package,
// which NewStream returns, start a goroutine for each 16 KiB: if several chunks are
// hashed at a time, these goroutines cost CPU time and gain nothing.
package blake

import (
	"encoding/binary"
	"hash"
	"math/bits"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// Sum returns the hash of b.
func Sum(b []byte) [32]byte { return New().Sum(b) }

// NewStream returns a hash for content that is read in pieces.
func NewStream() hash.Hash { return blake3.New(32, nil) }

// DeriveKey derives a key from key and fills sub with it. context names the purpose of
// the derived key.
func DeriveKey(sub []byte, context string, key []byte) { blake3.DeriveKey(sub, context, key) }

// span is the number of bytes that the vector code hashes at a time.
const span = guts.MaxSIMD * guts.ChunkSize

// Hasher computes keyed hashes, or hashes without a key. It keeps a buffer between
// calls and is not safe for concurrent use.
type Hasher struct {
	key   [8]uint32
	flags uint32
	tail  [span]byte
}

// New returns a hasher without a key.
func New() *Hasher { return &Hasher{key: guts.IV} }

// NewKeyed returns a hasher of BLAKE3's keyed mode.
func NewKeyed(key [32]byte) *Hasher {
	h := &Hasher{flags: guts.FlagKeyedHash}
	for i := range h.key {
		h.key[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	return h
}

// Sum returns the hash of b.
func (h *Hasher) Sum(b []byte) [32]byte {
	n := h.node(b, 0)
	n.Flags |= guts.FlagRoot
	words := guts.CompressNode(n)
	var out [32]byte
	for i := range h.key {
		binary.LittleEndian.PutUint32(out[4*i:], words[i])
	}
	return out
}

// node returns the root of the tree of b. counter is the offset of b in all hashed
// bytes, in KiB.
func (h *Hasher) node(b []byte, counter uint64) guts.Node {
	switch {
	case len(b) < span:
		copy(h.tail[:], b)
		return guts.CompressBuffer(&h.tail, len(b), &h.key, counter, h.flags)
	case len(b) == span:
		return guts.CompressBuffer((*[span]byte)(b), len(b), &h.key, counter, h.flags)
	}
	// The length of the left part is the largest power of two below the length of b.
	left := 1 << (bits.Len(uint(len(b)-1)) - 1)
	l := guts.ChainingValue(h.node(b[:left], counter))
	r := guts.ChainingValue(h.node(b[left:], counter+uint64(left/guts.ChunkSize)))
	return guts.ParentNode(l, r, &h.key, h.flags)
}
