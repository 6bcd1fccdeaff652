package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/pack/binread"
)

// MaxFileSize is the maximum length of an index file and of its plain form, in
// bytes.
const MaxFileSize = 256 << 20

const magic = "snapix01"

// ErrDamaged is the error for bytes that this package did not write.
var ErrDamaged = errors.New("damaged index file")

// File is one index file: packs and their headers. The headers are in their plain
// form, and all of them are compressed together, so an ID that is in several
// headers takes space only once.
type File struct {
	packs []byte
	n     int
}

// Add appends a pack.
func (f *File) Add(id pack.ID, size int64, h *pack.Header) {
	f.packs = append(f.packs, id[:]...)
	f.packs = binary.AppendUvarint(f.packs, uint64(size))
	header := h.Append(nil)
	f.packs = binary.AppendUvarint(f.packs, uint64(len(header)))
	f.packs = append(f.packs, header...)
	f.n++
}

// Len returns the number of packs added.
func (f *File) Len() int { return f.n }

// Size returns the length of the plain form so far, in bytes.
func (f *File) Size() int { return len(f.packs) }

// Seal returns the sealed bytes of the file.
func (f *File) Seal(sealer *crypto.Sealer) ([]byte, error) {
	plain := make([]byte, 0, len(f.packs)+16)
	plain = append(plain, pack.PlainVersion)
	plain = binary.AppendUvarint(plain, uint64(f.n))
	plain = append(plain, f.packs...)
	compressed, err := pack.Compress(plain)
	if err != nil {
		return nil, fmt.Errorf("index file: %w", err)
	}
	out, err := sealer.Seal([]byte(magic), compressed, nil)
	if err != nil {
		return nil, fmt.Errorf("seal an index file: %w", err)
	}
	return out, nil
}

// OpenFile unseals an index file and calls add for each of its packs. It checks the
// entire file before the first call.
func OpenFile(b []byte, sealer *crypto.Sealer, add func(id pack.ID, size int64, h pack.Header)) error {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: bad magic", ErrDamaged)
	}
	compressed, err := sealer.Open(nil, b[len(magic):], nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return expand(compressed, add)
}

// expand reads the compressed form of an index file.
func expand(compressed []byte, add func(id pack.ID, size int64, h pack.Header)) error {
	plain, err := pack.Expand(compressed, MaxFileSize)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return parse(plain, add)
}

type listedPack struct {
	id   pack.ID
	size int64
	h    pack.Header
}

func parse(b []byte, add func(id pack.ID, size int64, h pack.Header)) error {
	r := binread.NewReader(b)
	if v := r.Byte(); v != pack.PlainVersion {
		r.Fail("unknown version %d", v)
	}
	// A pack takes at least 34 bytes.
	n := r.Count(34)
	packs := make([]listedPack, 0, n)
	for range n {
		p := listedPack{id: pack.ID(r.ID()), size: int64(r.UpTo(pack.MaxSize, "pack size"))}
		header := r.Take(r.Count(1))
		if r.Err() != nil {
			break
		}
		var err error
		if p.h, err = pack.ParseHeader(header); err != nil {
			return fmt.Errorf("%w: pack %s: %w", ErrDamaged, p.id, err)
		}
		packs = append(packs, p)
	}
	if err := r.End(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for _, p := range packs {
		add(p.id, p.size, p.h)
	}
	return nil
}
