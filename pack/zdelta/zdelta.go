// Package zdelta compresses bytes that are mostly in a dictionary, such as a part of a
// database if the dictionary is the same part from the day before.
//
// The result is an ordinary zstd frame (RFC 8878) with a raw dictionary, which any zstd
// decoder reads. General encoders first insert each position of a dictionary into
// several tables, which takes far longer than finding the matches. This encoder inserts
// at most every fourth position and extends the matches that it finds, since they are
// nearly always long.
//
// The package never decodes, and knows nothing of blocks, packs or sealing.
package zdelta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/huff0"
)

const (
	magic = 0xFD2FB528
	// MaxWindow is the maximum distance of a match, in bytes. If a dictionary and a
	// content together are longer, a part of the dictionary is out of reach. Every zstd
	// decoder must accept this window.
	MaxWindow = 8 << 20
	// windowByte is MaxWindow in a frame header: 2^(10+13).
	windowByte = 13 << 3
	maxBlock   = 128 << 10 // of a zstd frame, in bytes
)

// Encoder compresses with a dictionary. It keeps its tables and buffers between calls and
// is not safe for concurrent use.
type Encoder struct {
	// hist is the dictionary, followed by the content. Positions are indexes of hist.
	hist  []byte
	start int // position of the content
	// long maps each hash of 8 bytes to the last position with this hash. short does
	// the same for hashes of 5 bytes. Position 0 means none.
	long, short         []uint32
	longBits, shortBits int
	reps                [3]int // the last offsets

	lits  []byte
	seqs  []sequence
	huff  huff0.Scratch
	codes codeTables
}

// sequence is a number of literals and then a match.
type sequence struct {
	lits, match int
	offset      uint32 // as encoded: 1 to 3 are repeated offsets
}

// Encode compresses plain with the dictionary dict and appends the frame to dst. plain
// may have at most 8 MiB.
func (e *Encoder) Encode(dst, plain, dict []byte) ([]byte, error) {
	if len(plain) == 0 || len(plain) > MaxWindow {
		return nil, fmt.Errorf("content of %d bytes", len(plain))
	}
	// Matches cannot reach further back than MaxWindow.
	dict = dict[max(0, len(dict)-MaxWindow):]
	e.hist = slices.Grow(e.hist[:0], len(dict)+len(plain))
	e.hist = append(append(e.hist, dict...), plain...)
	e.start = len(dict)
	e.reps = [3]int{1, 4, 8}
	e.index()
	dst = slices.Grow(dst, len(plain)/8+64) // enough for most deltas
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	// The frame has a window and a content size of 4 bytes, but no checksum or
	// dictionary ID.
	dst = append(dst, 2<<6, windowByte)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(plain)))
	for at := e.start; at < len(e.hist); at += maxBlock {
		end := min(at+maxBlock, len(e.hist))
		before := e.reps
		e.find(at, end)
		var err error
		if dst, err = e.appendBlock(dst, at, end); err != nil {
			return nil, err
		}
		if len(e.seqs) == 0 {
			e.reps = before
		}
	}
	return dst, nil
}

// Kinds of zstd blocks.
const (
	rawBlock        = 0
	compressedBlock = 2
)

func blockHeader(size, kind int, last bool) uint32 {
	h := uint32(size)<<3 | uint32(kind)<<1
	if last {
		h |= 1
	}
	return h
}

func put24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v), byte(v>>8), byte(v>>16) }

// appendBlock writes the sequences between two positions. If the sequences are not
// smaller than the bytes, it writes the bytes instead and clears the sequences.
func (e *Encoder) appendBlock(dst []byte, from, to int) ([]byte, error) {
	last := to == len(e.hist)
	head := len(dst)
	dst = append(dst, 0, 0, 0)
	var err error
	if dst, err = e.appendLiterals(dst); err != nil {
		return nil, err
	}
	dst = e.appendSequences(dst)
	size := len(dst) - head - 3
	if size >= to-from {
		e.seqs = e.seqs[:0]
		dst = append(dst[:head+3], e.hist[from:to]...)
		put24(dst[head:], blockHeader(to-from, rawBlock, last))
		return dst, nil
	}
	put24(dst[head:], blockHeader(size, compressedBlock, last))
	return dst, nil
}

// Kinds of literals.
const (
	rawLiterals  = 0
	rleLiterals  = 1
	huffLiterals = 2
)

func (e *Encoder) appendLiterals(dst []byte) ([]byte, error) {
	n := len(e.lits)
	var out []byte
	err := huff0.ErrIncompressible
	e.huff.Reuse = huff0.ReusePolicyNone // each block has its own table
	switch {
	case n >= 1024:
		out, _, err = huff0.Compress4X(e.lits, &e.huff)
	case n > 16:
		out, _, err = huff0.Compress1X(e.lits, &e.huff)
	}
	switch {
	case errors.Is(err, huff0.ErrUseRLE):
		return append(appendLiteralSize(dst, n, rleLiterals), e.lits[0]), nil
	case err == nil && len(out)+2 < n:
	case err == nil || errors.Is(err, huff0.ErrIncompressible):
		return append(appendLiteralSize(dst, n, rawLiterals), e.lits...), nil
	default:
		return nil, fmt.Errorf("compress literals: %w", err)
	}
	// Both sizes have 10, 14 or 18 bits. The first form has one stream, the others four.
	format, width := uint64(3), 18
	switch {
	case n < 1024:
		format, width = 0, 10
	case n < 1<<14:
		format, width = 2, 14
	}
	v := huffLiterals | format<<2 | uint64(n)<<4 | uint64(len(out))<<(4+width)
	for range (4 + 2*width) / 8 {
		dst = append(dst, byte(v))
		v >>= 8
	}
	return append(dst, out...), nil
}

func appendLiteralSize(dst []byte, n, kind int) []byte {
	switch {
	case n < 1<<5:
		return append(dst, byte(kind|n<<3))
	case n < 1<<12:
		return binary.LittleEndian.AppendUint16(dst, uint16(kind|1<<2|n<<4))
	}
	v := kind | 3<<2 | n<<4
	return append(dst, byte(v), byte(v>>8), byte(v>>16))
}

// log2 returns the number of the highest set bit.
func log2(v uint32) int { return bits.Len32(v) - 1 }
