package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// The first byte of an unsealed pack header, index file or certificate is the version
// of its form.
const (
	// PlainVersion is the version of the plain form.
	PlainVersion = 1
	// compressedVersion is followed by the length of the plain form without its
	// version, and one zstd frame of these bytes.
	compressedVersion = 2
)

const (
	// compressFrom is the minimum length of a plain form to compress, in bytes.
	// Compressing a shorter form is not worth a millisecond and the memory of an
	// encoder. For an index file, it would not even save a disk block.
	compressFrom = 4 << 10
	// maxRatio is the maximum compression ratio of zstd: 4 bytes for a block of 128
	// KiB.
	maxRatio = 32 << 10
)

// Compress returns the form in which a header, index file or certificate is sealed: the
// compressed form if it is clearly smaller, otherwise the plain form. IDs are random, so
// a header or index file is compressed only if IDs are repeated, as in dictionaries.
func Compress(plain []byte) ([]byte, error) {
	if len(plain) < compressFrom {
		return plain, nil
	}
	rest := plain[1:]
	// The default level does not find an ID that is repeated after many other IDs. A
	// window no larger than needed saves memory.
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

// Expand turns b, which Compress has returned, into the plain form. The error is
// ErrDamaged if the plain form has more than limit bytes after its version. Expand
// returns forms of unknown versions unchanged; their parser checks the version.
func Expand(b []byte, limit int) ([]byte, error) {
	frame, n, err := openFrame(b, limit)
	if err != nil || frame == nil {
		return b, err
	}
	dec, err := newDecoder(zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return nil, err
	}
	// The decoder stops at the capacity of its output, so a crafted frame cannot take
	// more memory.
	out := append(make([]byte, 0, 1+n), PlainVersion)
	out, err = dec.DecodeAll(frame, out)
	if err != nil {
		return nil, fmt.Errorf("%w: compressed form: %w", ErrDamaged, err)
	}
	if len(out) != 1+n {
		return nil, fmt.Errorf("%w: plain form of %d bytes, want %d", ErrDamaged, len(out)-1, n)
	}
	return out, nil
}

// openFrame returns the compressed frame of b and the length of its plain form, or no frame
// if b is not compressed.
func openFrame(b []byte, limit int) (frame []byte, n int, err error) {
	if len(b) == 0 || b[0] != compressedVersion {
		return nil, 0, nil
	}
	size, used := binary.Uvarint(b[1:])
	if used <= 0 {
		return nil, 0, fmt.Errorf("%w: bad length of a plain form", ErrDamaged)
	}
	frame = b[1+used:]
	if size == 0 || size > uint64(limit) || size > uint64(len(frame))*maxRatio {
		return nil, 0, fmt.Errorf("%w: a frame of %d bytes for a plain form of %d; at most %d are allowed", ErrDamaged, len(frame), size, limit)
	}
	return frame, int(size), nil
}

// NewExpander is like Expand, but returns a reader of the plain form, which is not in
// memory at once. Its errors wrap ErrDamaged.
func NewExpander(b []byte, limit int) (io.ReadCloser, error) {
	frame, n, err := openFrame(b, limit)
	if err != nil {
		return nil, err
	}
	if frame == nil {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	dec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	if err := dec.Reset(bytes.NewReader(frame)); err != nil {
		dec.Close()
		return nil, fmt.Errorf("%w: compressed form: %w", ErrDamaged, err)
	}
	return &expander{dec: dec, version: true, left: n}, nil
}

// expander reads a plain form: its version and the content of a frame.
type expander struct {
	dec     *zstd.Decoder
	version bool // it has not been read yet
	left    int  // bytes of the frame that must still come
}

func (e *expander) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if e.version {
		e.version, p[0] = false, PlainVersion
		return 1, nil
	}
	n, err := e.dec.Read(p)
	e.left -= n
	switch {
	case e.left < 0, errors.Is(err, io.EOF) && e.left > 0:
		return 0, fmt.Errorf("%w: plain form of another length than its frame says", ErrDamaged)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("%w: compressed form: %w", ErrDamaged, err)
	}
	return n, err
}

func (e *expander) Close() error {
	e.dec.Close()
	return nil
}
