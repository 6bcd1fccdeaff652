//go:build (amd64 || arm64) && !purego

package aescbc

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// rounds is how often AES-256 transforms a block.
const rounds = 14

// roundKeys are the keys of all rounds, one after another, as they are in memory.
type roundKeys [(rounds + 1) * 4]uint32

// schedule is a key, expanded for both directions.
type schedule struct{ encrypt, decrypt roundKeys }

// expand is the key expansion of FIPS 197. It uses no lookup tables, since the time of a
// lookup would depend on the key.
func (s *schedule) expand(key *[KeySize]byte) {
	w := &s.encrypt
	for i := range 8 {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	constant := uint32(1)
	for i := 8; i < len(w); i++ {
		t := w[i-1]
		switch i % 8 {
		case 0:
			t = bits.RotateLeft32(subWord(t), -8) ^ constant
			constant <<= 1
		case 4:
			t = subWord(t)
		}
		w[i] = w[i-8] ^ t
	}
	invertKeys(&s.decrypt, &s.encrypt)
}

// laneSet is what encryptLanes works on. The assembly knows the offsets of its fields.
// Lanes without a stream encrypt scratch again and again.
type laneSet struct {
	at      [Lanes]unsafe.Pointer // the next block of each lane
	step    [Lanes]uintptr        // BlockSize; 0 for lanes without a stream
	iv      [Lanes]IV
	keys    [rounds + 1][Lanes][4]uint32
	scratch [Lanes]IV

	stream [Lanes]*Lane // nil for lanes without one
	left   [Lanes]int   // bytes of the stream
}

// encrypt encrypts the streams. When a stream ends, the next one gets its lane.
func (s *laneSet) encrypt(streams []Lane) {
	next := 0
	for i := range s.at {
		s.at[i] = unsafe.Pointer(&s.scratch[i])
	}
	for {
		busy, shortest := 0, 0
		for i := range s.stream {
			for s.stream[i] == nil && next < len(streams) {
				s.begin(i, &streams[next])
				next++
			}
			if s.stream[i] == nil {
				continue
			}
			if busy++; busy == 1 || s.left[i] < shortest {
				shortest = s.left[i]
			}
		}
		if busy == 0 {
			return
		}
		if busy == 1 {
			s.encryptLast()
			return
		}
		encryptLanes(s, shortest/BlockSize)
		for i := range s.stream {
			if s.stream[i] == nil {
				continue
			}
			s.advance(i, shortest)
		}
	}
}

// begin gives a lane to a stream, unless the stream is empty.
func (s *laneSet) begin(i int, l *Lane) {
	if n := count(l.Bytes, l.Bytes); n == 0 {
		return
	}
	s.stream[i], s.left[i] = l, len(l.Bytes)
	s.at[i], s.step[i], s.iv[i] = unsafe.Pointer(&l.Bytes[0]), BlockSize, *l.IV
	for r := range s.keys {
		s.keys[r][i] = [4]uint32(l.Cipher.expanded.encrypt[4*r:])
	}
}

// advance moves a lane on by n bytes. At the end of its stream it takes the lane back. No
// pointer ever points past the end of a stream.
func (s *laneSet) advance(i, n int) {
	l := s.stream[i]
	if s.left[i] -= n; s.left[i] > 0 {
		s.at[i] = unsafe.Pointer(&l.Bytes[len(l.Bytes)-s.left[i]])
		return
	}
	*l.IV = s.iv[i]
	s.stream[i], s.at[i], s.step[i] = nil, unsafe.Pointer(&s.scratch[i]), 0
}

// encryptLast encrypts the rest of the only stream that is left.
func (s *laneSet) encryptLast() {
	for i, l := range s.stream {
		if l != nil {
			rest := l.Bytes[len(l.Bytes)-s.left[i]:]
			*l.IV = s.iv[i]
			l.Cipher.Encrypt(rest, rest, l.IV)
		}
	}
}

// subWord replaces each byte of w by its entry in the S-box.
//
//go:noescape
func subWord(w uint32) uint32

// invertKeys sets decrypt to the keys of the equivalent inverse cipher.
//
//go:noescape
func invertKeys(decrypt, encrypt *roundKeys)

// encryptBlocks, decryptBlocks and differ process at least one block.
//
//go:noescape
func encryptBlocks(keys *roundKeys, dst, src *byte, blocks int, iv *IV)

//go:noescape
func decryptBlocks(keys *roundKeys, dst, src *byte, blocks int, iv *IV)

// differ returns 0 if ciphertext is what encryptBlocks makes of plain.
//
//go:noescape
func differ(keys *roundKeys, plain, ciphertext *byte, blocks int, iv *IV) uint64

// encryptLanes encrypts at least one block of each lane. It leaves the pointers as they
// are.
//
//go:noescape
func encryptLanes(s *laneSet, blocks int)
