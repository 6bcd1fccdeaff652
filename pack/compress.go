package pack

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// A pack header or index file begins with the version of its form.
const (
	// PlainVersion is that of the plain form.
	PlainVersion = 1
	// compressedVersion stands for the length of what follows the version in the
	// plain form, and one zstd frame of it.
	compressedVersion = 2
)

const (
	// compressFrom is the length of the plain form, in bytes, from which on
	// compressing is tried. Below it there is less to gain than the millisecond and
	// the memory for an encoder are worth, and for an index file, which takes a
	// whole block of the disk, nothing.
	compressFrom = 4 << 10
	// maxRatio is how many bytes one byte of a zstd frame can stand for: a block of
	// 4 bytes is at most 128 KiB.
	maxRatio = 32 << 10
)

// Compress returns the form of a header or an index file that is to be sealed,
// given the plain one: a compressed one where that is clearly smaller, otherwise
// plain itself. IDs are random, so it is smaller where IDs are listed again, as
// those of dictionaries often are.
func Compress(plain []byte) ([]byte, error) {
	if len(plain) < compressFrom {
		return plain, nil
	}
	rest := plain[1:]
	// What is repeated may lie far back among many other IDs: the default level
	// forgets them too soon. A window no longer than needed saves memory.
	enc, err := newEncoder(zstd.SpeedBetterCompression,
		zstd.WithWindowSize(min(MaxBlockSize, 1<<bits.Len(uint(len(rest)-1)))),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(plain)), compressedVersion)
	out = binary.AppendUvarint(out, uint64(len(rest)))
	out = enc.EncodeAll(rest, out)
	if len(out) >= len(plain)-len(plain)/16 {
		return plain, nil
	}
	return out, nil
}

// Expand returns the plain form of what Compress returned, which has at most
// limit bytes after its version, or ErrDamaged. It returns bytes of any other
// version as they are: whoever parses them judges that.
func Expand(b []byte, limit int) ([]byte, error) {
	if len(b) == 0 || b[0] != compressedVersion {
		return b, nil
	}
	n, used := binary.Uvarint(b[1:])
	if used <= 0 {
		return nil, fmt.Errorf("%w: bad length of a plain form", ErrDamaged)
	}
	frame := b[1+used:]
	if n == 0 || n > uint64(limit) || n > uint64(len(frame))*maxRatio {
		return nil, fmt.Errorf("%w: a frame of %d bytes for a plain form of %d, of which %d are allowed", ErrDamaged, len(frame), n, limit)
	}
	dec, err := newDecoder(zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return nil, err
	}
	// The decoder stops at the capacity, so a lying frame cannot grow further.
	out := append(make([]byte, 0, 1+n), PlainVersion)
	out, err = dec.DecodeAll(frame, out)
	if err != nil {
		return nil, fmt.Errorf("%w: compressed form: %w", ErrDamaged, err)
	}
	if uint64(len(out)) != 1+n {
		return nil, fmt.Errorf("%w: plain form of %d bytes, want %d", ErrDamaged, len(out)-1, n)
	}
	return out, nil
}
