package parity

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack/binread"
	"github.com/snap-backup/snap/repo/internal/layout"
)

const (
	magic   = layout.ParityMagic + "01"
	version = 1
	// shardSize is the length of a shard, in bytes. A flipped bit makes one shard
	// useless.
	shardSize = 64 << 10
	minShard  = 64
	maxShard  = 1 << 20
	// maxFiles is the maximum number of files in a group, maxParity the maximum
	// number of parity shards in a stripe. Their sum is within the limit of the
	// Reed-Solomon code.
	maxFiles  = 200
	maxParity = 50
	// maxMember is the maximum length of a file of a group, in bytes.
	maxMember = 128 << 20
	sumSize   = 16
	// maxHeader is the maximum length of a header, in bytes.
	maxHeader      = 64 << 20
	headerOverhead = 4 + 32 // length and hash of a header
)

// ErrDamaged is the error for bytes that this package did not write.
var ErrDamaged = errors.New("damaged parity file")

// sum is the first 16 bytes of the BLAKE3-256 of a shard.
type sum [sumSize]byte

func sumOf(b []byte) sum {
	h := blake.Sum(b)
	return sum(h[:sumSize])
}

// file is a protected file. Its shards are data shards of its group.
type file struct {
	kind byte
	id   [32]byte
	size int64
	sums []sum // of its shards
}

// Header describes a parity group: its files and the hash of every shard.
type Header struct {
	percent int // the parity that the user asked for, in hundredths of a percent
	shard   int // bytes
	parity  int // parity shards in a stripe
	files   []file
	sums    []sum // of the parity shards, stripe by stripe
}

// length returns the length of the longest file, in bytes.
func (h *Header) length() int64 {
	n := int64(0)
	for i := range h.files {
		n = max(n, h.files[i].size)
	}
	return n
}

func shardCount(size int64, shard int) int { return int((size + int64(shard) - 1) / int64(shard)) }

// stripes returns the number of stripes.
func (h *Header) stripes() int { return shardCount(h.length(), h.shard) }

// width returns the length of a stripe's shards, in bytes. Those of the last stripe
// may be shorter.
func (h *Header) width(stripe int) int {
	return int(min(int64(h.shard), h.length()-int64(stripe)*int64(h.shard)))
}

// append appends the encoded header to b.
func (h *Header) append(b []byte) []byte {
	b = append(b, version)
	b = binary.AppendUvarint(b, uint64(h.percent))
	b = binary.AppendUvarint(b, uint64(h.shard))
	b = binary.AppendUvarint(b, uint64(h.parity))
	b = binary.AppendUvarint(b, uint64(len(h.files)))
	for i := range h.files {
		m := &h.files[i]
		b = append(b, m.kind)
		b = append(b, m.id[:]...)
		b = binary.AppendUvarint(b, uint64(m.size))
		for _, s := range m.sums {
			b = append(b, s[:]...)
		}
	}
	for _, s := range h.sums {
		b = append(b, s[:]...)
	}
	return b
}

// ParseHeader parses an encoded header. The header must fill b.
func ParseHeader(b []byte) (*Header, error) {
	r := binread.NewReader(b)
	if v := r.Byte(); v != version {
		return nil, fmt.Errorf("%w: header version %d", ErrDamaged, v)
	}
	number := func(limit int) int {
		v := r.Uvarint()
		if v > uint64(limit) {
			r.Fail("number %d is above %d", v, limit)
			return 0
		}
		return int(v)
	}
	h := &Header{percent: number(100_00), shard: number(maxShard), parity: number(maxParity)}
	n := number(maxFiles)
	if r.Err() == nil && (h.shard < minShard || n > 0 && h.parity < 1) {
		r.Fail("impossible numbers")
	}
	for i := 0; i < n && r.Err() == nil; i++ {
		m := file{kind: r.Byte()}
		copy(m.id[:], r.Take(32))
		m.size = int64(number(maxMember))
		if r.Err() == nil && (int(m.kind) >= len(kinds) || m.size < 1) {
			r.Fail("a file of kind %d with %d bytes", m.kind, m.size)
		}
		if r.Err() == nil {
			m.sums = sums(r, shardCount(m.size, h.shard))
		}
		h.files = append(h.files, m)
	}
	if r.Err() == nil {
		h.sums = sums(r, h.stripes()*h.parity)
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return h, nil
}

func sums(r *binread.Reader, n int) []sum {
	b := r.Take(n * sumSize)
	if b == nil {
		return nil
	}
	out := make([]sum, n)
	for i := range out {
		out[i] = sum(b[i*sumSize:])
	}
	return out
}

// encode returns the bytes of a parity file. The header is at both ends, so that
// damage at one place does not make the rest useless.
func (h *Header) encode(parity []byte) []byte {
	head := h.append(nil)
	hash := blake.Sum(head)
	b := make([]byte, 0, len(magic)+2*(len(head)+headerOverhead)+len(parity))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = append(append(b, head...), hash[:]...)
	b = append(b, parity...)
	b = append(append(b, head...), hash[:]...)
	return binary.LittleEndian.AppendUint32(b, uint32(len(head)))
}

// open parses a header that is followed by its hash.
func open(b []byte) (*Header, error) {
	if len(b) < 32 {
		return nil, fmt.Errorf("%w: ends early", ErrDamaged)
	}
	head, want := b[:len(b)-32], b[len(b)-32:]
	if hash := blake.Sum(head); string(hash[:]) != string(want) {
		return nil, fmt.Errorf("%w: header does not match its hash", ErrDamaged)
	}
	return ParseHeader(head)
}
