package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
)

// Builder builds a pack in memory.
type Builder struct {
	buf    []byte
	header Header
	listed int // upper bound of the header's length in its plain form
}

// NewBuilder returns a builder for a pack. It builds the pack in buf as long as it fits
// there, and overwrites what buf holds.
func NewBuilder(kind Kind, buf []byte) *Builder {
	return &Builder{buf: append(buf[:0], magic...), header: Header{Kind: kind}}
}

// Add appends a block with its sealed bytes. It sets Offset and Stored.
func (b *Builder) Add(sealed []byte, blk Block) {
	blk.Offset, blk.Stored = uint32(len(b.buf)), uint32(len(sealed))
	b.buf = append(b.buf, sealed...)
	b.header.Blocks = append(b.header.Blocks, blk)
	b.listed += listedSize(len(blk.Chunks)) + len(blk.Dict)*len(chunk.ID{})
}

// listedSize returns the maximum length of a block's description in the header. Numbers
// take up to 5 bytes.
func listedSize(chunks int) int { return 16 + chunks*(len(chunk.ID{})+5) }

// Fits reports whether a block with the given numbers of sealed bytes and chunks can be
// added without exceeding a limit: size bytes for the file, and half of MaxHeaderSize
// for its header. Headers are long if blocks have many tiny chunks that compress well.
func (b *Builder) Fits(sealed, chunks, size int) bool {
	header := b.listed + listedSize(chunks)
	return header <= MaxHeaderSize/2 && len(b.buf)+sealed+header <= size
}

// Size returns the length of the pack so far, without its header, in bytes.
func (b *Builder) Size() int { return len(b.buf) }

// Empty reports whether no block was added.
func (b *Builder) Empty() bool { return len(b.header.Blocks) == 0 }

// Finish seals the header with the key for packs and returns the file. The builder must
// not be used afterwards.
func (b *Builder) Finish(sealer *crypto.Sealer) ([]byte, Header, error) {
	at := len(b.buf)
	plain := b.header.Append(nil)
	header, err := Compress(plain)
	var file []byte
	if err == nil {
		file, err = sealer.Seal(b.buf, header, nil)
	}
	if err == nil && (len(plain)+crypto.Overhead > MaxHeaderSize || len(file)+trailerSize > MaxSize) {
		err = fmt.Errorf("%d bytes with a header of %d exceed the limits", len(file)+trailerSize, len(plain)+crypto.Overhead)
	}
	if err != nil {
		return nil, Header{}, fmt.Errorf("finish a pack: %w", err)
	}
	file = binary.LittleEndian.AppendUint32(file, uint32(len(file)-at))
	return file, b.header, nil
}

// ReadHeader reads and unseals the header of a pack file of the given size. The error
// is ErrDamaged if the header's blocks do not fill the file exactly.
func ReadHeader(r io.ReaderAt, size int64, sealer *crypto.Sealer) (Header, error) {
	if size < int64(minSize) || size > MaxSize {
		return Header{}, fmt.Errorf("%w: file of %d bytes", ErrDamaged, size)
	}
	var trailer [trailerSize]byte
	if err := readFull(r, trailer[:], size-trailerSize); err != nil {
		return Header{}, err
	}
	n := int64(binary.LittleEndian.Uint32(trailer[:]))
	if n > MaxHeaderSize || n > size-int64(len(magic)+trailerSize) {
		return Header{}, fmt.Errorf("%w: header of %d bytes in a file of %d", ErrDamaged, n, size)
	}
	sealed := make([]byte, n)
	if err := readFull(r, sealed, size-trailerSize-n); err != nil {
		return Header{}, err
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	h, err := expandHeader(plain)
	if err != nil {
		return Header{}, err
	}
	end := int64(len(magic))
	if len(h.Blocks) > 0 {
		last := h.Blocks[len(h.Blocks)-1]
		end = int64(last.Offset) + int64(last.Stored)
	}
	if end+n+trailerSize != size {
		return Header{}, fmt.Errorf("%w: blocks end at %d, header begins at %d", ErrDamaged, end, size-trailerSize-n)
	}
	var head [len(magic)]byte
	if err := readFull(r, head[:], 0); err != nil {
		return Header{}, err
	}
	if string(head[:]) != magic {
		return Header{}, fmt.Errorf("%w: magic %q", ErrDamaged, head)
	}
	return h, nil
}

// expandHeader parses an unsealed header.
func expandHeader(b []byte) (Header, error) {
	plain, err := Expand(b, MaxHeaderSize)
	if err != nil {
		return Header{}, fmt.Errorf("header: %w", err)
	}
	return ParseHeader(plain)
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrDamaged, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
}
