package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
)

// MaxFileSize is the maximum length of an index file and of its plain form, in
// bytes.
const MaxFileSize = 256 << 20

// Magic is how index files of all versions begin.
const Magic = "snapix"

const magic = Magic + "01"

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

// listAtOnce bounds the bytes of headers that are held in memory. Longer headers are read
// twice.
const listAtOnce = 1 << 20

type listedPack struct {
	id   pack.ID
	size int64
	h    pack.Header
}

// expand reads the compressed form of an index file. The plain form of a large file and
// its headers are never in memory at once: expand checks all of them, and then reads
// them again.
func expand(compressed []byte, add func(id pack.ID, size int64, h pack.Header)) error {
	var packs []listedPack
	total := 0
	err := scan(compressed, func(id pack.ID, size int64, h pack.Header, length int) {
		if total += length; total <= listAtOnce {
			packs = append(packs, listedPack{id, size, h})
		} else {
			packs = nil
		}
	})
	if err != nil {
		return err
	}
	if total > listAtOnce {
		return scan(compressed, func(id pack.ID, size int64, h pack.Header, _ int) { add(id, size, h) })
	}
	for _, p := range packs {
		add(p.id, p.size, p.h)
	}
	return nil
}

// scan calls fn for each pack of a file, with the length of its header.
func scan(compressed []byte, fn func(id pack.ID, size int64, h pack.Header, length int)) error {
	in, err := pack.NewExpander(compressed, MaxFileSize)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer in.Close()
	r := bufio.NewReaderSize(in, 64<<10)
	if err := scanPacks(r, fn); err != nil && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	} else if err != nil {
		return err
	}
	if _, err := r.ReadByte(); err == nil {
		return fmt.Errorf("%w: bytes after the last pack", ErrDamaged)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func scanPacks(r *bufio.Reader, fn func(id pack.ID, size int64, h pack.Header, length int)) error {
	v, err := r.ReadByte()
	if err != nil {
		return err
	}
	if v != pack.PlainVersion {
		return fmt.Errorf("%w: unknown version %d", ErrDamaged, v)
	}
	n, err := readUvarint(r, MaxFileSize, "number of packs")
	if err != nil {
		return err
	}
	var header []byte
	for range n {
		var id pack.ID
		if _, err := io.ReadFull(r, id[:]); err != nil {
			return err
		}
		size, err := readUvarint(r, pack.MaxSize, "pack size")
		if err != nil {
			return err
		}
		length, err := readUvarint(r, MaxFileSize, "header size")
		if err != nil {
			return err
		}
		if header, err = readHeader(r, header, int(length)); err != nil {
			return err
		}
		h, err := pack.ParseHeader(header)
		if err != nil {
			return fmt.Errorf("%w: pack %s: %w", ErrDamaged, id, err)
		}
		fn(id, int64(size), h, len(header))
	}
	return nil
}

// readHeader reads n bytes. It takes memory only for bytes that are there.
func readHeader(r io.Reader, buf []byte, n int) ([]byte, error) {
	const step = 1 << 20
	buf = buf[:0]
	for len(buf) < n {
		at := len(buf)
		buf = slices.Grow(buf, min(step, n-at))[:at+min(step, n-at)]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return nil, err
		}
	}
	return buf, nil
}

func readUvarint(r io.ByteReader, limit uint64, what string) (uint64, error) {
	n, err := binary.ReadUvarint(r)
	if err == nil && n > limit {
		err = fmt.Errorf("%w: %s %d", ErrDamaged, what, n)
	}
	return n, err
}
