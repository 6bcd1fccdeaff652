// Package pack writes and reads packs: files of sealed blocks with a sealed header that
// describes them.
//
//	offset  length
//	0       8       magic "snappk01"
//	8       …       sealed blocks, one after another
//	…       …       sealed header
//	end-4   4       length of the sealed header, little-endian
//
// A block is the unit of compression and sealing. It has one or more chunks. The
// header lists all blocks, so a lost index can be rebuilt from packs. A pack's name is
// the BLAKE3-256 of its bytes, so bit rot can be found without a key. docs/format.md
// describes the format and has test vectors.
//
// Long headers with repeated IDs are compressed, and so are index files (compress.go).
//
// Parsed headers are within the limits below, and decoded blocks have the length that
// their header says. The package never compares chunks with their IDs, since only the
// repository has the key for that. It knows nothing of indexes or storage.
package pack

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack/binread"
)

// Limits of the format. Readers refuse packs that exceed these limits, so no pack can
// make a reader allocate without bound.
const (
	MaxSize        = 128 << 20     // bytes of a pack file
	MaxHeaderSize  = 32 << 20      // bytes of a sealed header, and of its plain form
	MaxBlockSize   = chunk.MaxSize // bytes of a block's plaintext
	MaxBlockChunks = 1 << 16
	MaxDictChunks  = 256
	MaxDictSize    = chunk.MaxSize // bytes of a block's dictionary
	// MaxDepth is the maximum depth of a block. A block without a dictionary has depth
	// 0. The depth of any other block is one more than that of the deepest block with a
	// chunk of its dictionary.
	MaxDepth = 16
)

// Magic is how packs of all versions begin.
const Magic = "snappk"

const (
	magic       = Magic + "01"
	trailerSize = 4
	// minSize is the length of a pack without blocks, which is never written.
	minSize = len(magic) + crypto.Overhead + trailerSize
)

// ErrDamaged is the error for bytes that this package did not write.
var ErrDamaged = errors.New("damaged pack")

// ID is the name of a pack: the BLAKE3-256 of the file's bytes.
type ID [32]byte

// String returns the ID as 64 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Kind is the kind of a pack's chunks. Metadata is in separate packs, so that listing a
// snapshot reads few, small files.
type Kind uint8

// The kinds of packs.
const (
	Content  Kind = 0 // chunks of files
	Metadata Kind = 1 // tree nodes and content lists
	numKinds      = 2
)

// String returns the name of the kind.
func (k Kind) String() string { return [...]string{"content", "metadata"}[min(k, numKinds-1)] }

// Encoding is how a block's plaintext is encoded before it is sealed.
type Encoding uint8

// The encodings of blocks.
const (
	Raw          Encoding = 0 // not compressed
	Zstd         Encoding = 1 // one zstd frame
	Delta        Encoding = 2 // one zstd frame with a raw dictionary of other chunks
	numEncodings          = 3
)

// String returns the name of the encoding.
func (e Encoding) String() string {
	if e < numEncodings {
		return [...]string{"raw", "zstd", "delta"}[e]
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

// Chunk is one chunk of a block.
type Chunk struct {
	ID     chunk.ID
	Length uint32 // bytes of plaintext, at least 1
}

// Block describes one block of a pack.
type Block struct {
	Offset   uint32 // where the sealed bytes begin in the pack
	Stored   uint32 // length of the sealed bytes
	Encoding Encoding
	Dict     []chunk.ID // the chunks of the dictionary, in order; only with Delta
	Chunks   []Chunk    // in the order of the plaintext
}

// Size returns the length of the block's plaintext, in bytes.
func (b *Block) Size() int {
	n := 0
	for _, c := range b.Chunks {
		n += int(c.Length)
	}
	return n
}

// Header describes the blocks of a pack.
type Header struct {
	Kind   Kind
	Blocks []Block
}

// Append appends the plain form of the header to dst.
func (h *Header) Append(dst []byte) []byte {
	dst = append(dst, PlainVersion, byte(h.Kind))
	dst = binary.AppendUvarint(dst, uint64(len(h.Blocks)))
	for i := range h.Blocks {
		b := &h.Blocks[i]
		dst = append(dst, byte(b.Encoding))
		dst = binary.AppendUvarint(dst, uint64(b.Stored))
		if b.Encoding == Delta {
			dst = binary.AppendUvarint(dst, uint64(len(b.Dict)))
			for _, id := range b.Dict {
				dst = append(dst, id[:]...)
			}
		}
		dst = binary.AppendUvarint(dst, uint64(len(b.Chunks)))
		for _, c := range b.Chunks {
			dst = append(dst, c.ID[:]...)
			dst = binary.AppendUvarint(dst, uint64(c.Length))
		}
	}
	return dst
}

// ParseHeader parses the plain form of a header and checks the limits. The header must
// fill b.
func ParseHeader(b []byte) (Header, error) {
	r := binread.NewReader(b)
	if v := r.Byte(); v != PlainVersion && r.Err() == nil {
		return Header{}, fmt.Errorf("%w: header version %d", ErrDamaged, v)
	}
	h := Header{Kind: Kind(r.Byte())}
	if h.Kind >= numKinds {
		return Header{}, fmt.Errorf("%w: pack kind %d", ErrDamaged, h.Kind)
	}
	// A block takes at least 36 bytes, which limits what a count can allocate.
	n := r.Count(36)
	h.Blocks = make([]Block, 0, n)
	offset := uint64(len(magic))
	for range n {
		blk := readBlock(r)
		blk.Offset = uint32(offset)
		offset += uint64(blk.Stored)
		if r.Err() == nil && offset > MaxSize {
			r.Fail("blocks of more than %d bytes", MaxSize)
		}
		if r.Err() != nil {
			break
		}
		h.Blocks = append(h.Blocks, blk)
	}
	if err := r.End(); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	return h, nil
}

// readBlock parses and checks the description of a block.
func readBlock(r *binread.Reader) Block {
	b := Block{Encoding: Encoding(r.Byte())}
	if b.Encoding >= numEncodings {
		r.Fail("unknown %s", b.Encoding)
	}
	b.Stored = uint32(r.UpTo(MaxBlockSize+maxExpansion, "stored length"))
	if b.Encoding == Delta {
		n := r.Count(len(chunk.ID{}))
		if r.Err() == nil && (n == 0 || n > MaxDictChunks) {
			r.Fail("dictionary of %d chunks", n)
			return b
		}
		b.Dict = make([]chunk.ID, n)
		for i := range b.Dict {
			b.Dict[i] = r.ID()
		}
	}
	n := r.Count(len(chunk.ID{}) + 1)
	if r.Err() == nil && (n == 0 || n > MaxBlockChunks) {
		r.Fail("block of %d chunks", n)
	}
	if r.Err() != nil {
		return b
	}
	b.Chunks = make([]Chunk, n)
	size := uint64(0)
	for i := range b.Chunks {
		b.Chunks[i].ID = r.ID()
		length := r.UpTo(MaxBlockSize, "chunk length")
		if length == 0 && r.Err() == nil {
			r.Fail("chunk of no bytes")
		}
		b.Chunks[i].Length = uint32(length)
		size += length
	}
	switch {
	case r.Err() != nil:
	case size > MaxBlockSize:
		r.Fail("block of %d bytes", size)
	case b.Stored < crypto.Overhead+1:
		r.Fail("sealed block of %d bytes", b.Stored)
	case b.Encoding == Raw && uint64(b.Stored) != size+crypto.Overhead:
		r.Fail("raw block of %d bytes, stored in %d", size, b.Stored)
	}
	return b
}

// maxExpansion is the number of bytes by which a sealed block may exceed MaxBlockSize.
// Writers need less: they store a block raw if compression would make it longer.
const maxExpansion = 1 << 16

// Name returns the ID of a pack file.
func Name(file []byte) ID { return blake.New().Sum(file) }
