// Package blake computes BLAKE3-256 of bytes that are at hand as a whole.
//
// It gives what lukechampine.com/blake3 gives, and uses that package's vector
// code. That package's streaming interface cuts what it is given into trees of
// powers of two and starts a goroutine for each 16 KiB, which chunks of 64 KiB
// pay for in CPU time. Whoever hashes here has other chunks for the other
// cores.
package blake

import (
	"encoding/binary"
	"math/bits"

	"lukechampine.com/blake3/guts"
)

// span is what vector code hashes at a time, in bytes.
const span = guts.MaxSIMD * guts.ChunkSize

// Hasher computes hashes of one kind. It keeps memory between calls: each
// goroutine needs its own.
type Hasher struct {
	key   [8]uint32
	flags uint32
	tail  [span]byte
}

// New returns a hasher without a key.
func New() *Hasher { return &Hasher{key: guts.IV} }

// NewKeyed returns a hasher for BLAKE3's keyed mode.
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

// node returns the node above b, whose first KiB is number counter of the
// whole.
func (h *Hasher) node(b []byte, counter uint64) guts.Node {
	switch {
	case len(b) < span:
		copy(h.tail[:], b)
		return guts.CompressBuffer(&h.tail, len(b), &h.key, counter, h.flags)
	case len(b) == span:
		return guts.CompressBuffer((*[span]byte)(b), len(b), &h.key, counter, h.flags)
	}
	// The left part is the largest power of two that leaves something.
	left := 1 << (bits.Len(uint(len(b)-1)) - 1)
	l := guts.ChainingValue(h.node(b[:left], counter))
	r := guts.ChainingValue(h.node(b[left:], counter+uint64(left/guts.ChunkSize)))
	return guts.ParentNode(l, r, &h.key, h.flags)
}
