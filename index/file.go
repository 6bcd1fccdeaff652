package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
)

// MaxFileSize bounds an index file, in bytes.
const MaxFileSize = 256 << 20

const (
	magic       = "snapix01"
	fileVersion = 1
)

// ErrDamaged says that bytes are not what this package writes.
var ErrDamaged = errors.New("damaged index file")

// File is one index file: packs and their headers.
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

// Size is the length of the file so far, in bytes.
func (f *File) Size() int { return len(f.packs) }

// Seal returns the bytes of the file.
func (f *File) Seal(sealer *crypto.Sealer) ([]byte, error) {
	plain := make([]byte, 0, len(f.packs)+16)
	plain = append(plain, fileVersion)
	plain = binary.AppendUvarint(plain, uint64(f.n))
	plain = append(plain, f.packs...)
	out, err := sealer.Seal([]byte(magic), plain, nil)
	if err != nil {
		return nil, fmt.Errorf("seal an index file: %w", err)
	}
	return out, nil
}

// OpenFile opens the bytes of a file and calls add for each pack in it. It
// checks all of the file before the first call.
func OpenFile(b []byte, sealer *crypto.Sealer, add func(id pack.ID, size int64, h pack.Header)) error {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: bad magic", ErrDamaged)
	}
	plain, err := sealer.Open(nil, b[len(magic):], nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return parse(plain, add)
}

type packed struct {
	id   pack.ID
	size int64
	h    pack.Header
}

func parse(b []byte, add func(id pack.ID, size int64, h pack.Header)) error {
	if len(b) == 0 || b[0] != fileVersion {
		return fmt.Errorf("%w: unknown version", ErrDamaged)
	}
	b = b[1:]
	count, b, err := number(b)
	// A pack takes more than 34 bytes.
	if err != nil || count > uint64(len(b)/34) {
		return fmt.Errorf("%w: %d packs do not fit into %d bytes", ErrDamaged, count, len(b))
	}
	packs := make([]packed, 0, count)
	for range count {
		var p packed
		if len(b) < len(p.id) {
			return fmt.Errorf("%w: ends early", ErrDamaged)
		}
		b = b[copy(p.id[:], b):]
		var size, n uint64
		if size, b, err = number(b); err != nil || size > pack.MaxSize {
			return fmt.Errorf("%w: pack %s of %d bytes", ErrDamaged, p.id, size)
		}
		if n, b, err = number(b); err != nil || n > uint64(len(b)) {
			return fmt.Errorf("%w: pack %s: ends early", ErrDamaged, p.id)
		}
		p.size = int64(size)
		if p.h, err = pack.ParseHeader(b[:n]); err != nil {
			return fmt.Errorf("%w: pack %s: %w", ErrDamaged, p.id, err)
		}
		b = b[n:]
		packs = append(packs, p)
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %d bytes left over", ErrDamaged, len(b))
	}
	for _, p := range packs {
		add(p.id, p.size, p.h)
	}
	return nil
}

func number(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, b, ErrDamaged
	}
	return v, b[n:], nil
}
