package parity

import (
	"context"
	"hash"
	"slices"

	"github.com/klauspost/reedsolomon"
	"github.com/snap-backup/snap/crypto/blake"
)

// windowBytes is the approximate number of bytes that are read at a time from all files
// of a group together.
const windowBytes = 32 << 20

// build returns the parity file of a group. It leaves out damaged files and
// returns their names. If all are damaged, the parity file is nil.
func (s *Set) build(ctx context.Context, percent int, files []file) (parityFile []byte, bad []string, err error) {
	for len(files) > 0 {
		h := &Header{percent: percent, shard: shardSize, parity: stripeParity(len(files)), files: slices.Clone(files)}
		parity, wrong, err := s.compute(ctx, h)
		if err != nil {
			return nil, nil, err
		}
		if len(wrong) == 0 {
			return h.encode(parity), bad, nil
		}
		bad = append(bad, wrong...)
		files = slices.DeleteFunc(slices.Clone(files), func(f file) bool { return slices.Contains(wrong, f.name()) })
	}
	return nil, bad, nil
}

// compute reads the files of a header and fills in the hashes of all shards. It
// returns the parity shards and the names of damaged files.
func (s *Set) compute(ctx context.Context, h *Header) (parity []byte, bad []string, err error) {
	h.sums = nil
	if len(h.files) == 0 {
		return nil, nil, nil // a group without files only stores the percentage
	}
	e, err := newEncoder(h)
	if err != nil {
		return nil, nil, err
	}
	for off := int64(0); off < h.length(); off += e.step {
		if err := e.read(ctx, s, off); err != nil {
			return nil, nil, err
		}
		if err := e.encode(off); err != nil {
			return nil, nil, err
		}
	}
	return e.parity, e.damagedFiles(), nil
}

// encoder computes the parity of a group, one window at a time. A window has the bytes
// at the same offsets of all files.
type encoder struct {
	h      *Header
	code   reedsolomon.Encoder
	step   int64       // bytes of a window in one file, a multiple of the shard size
	window [][]byte    // the bytes of each file, padded with zeros
	hashes []hash.Hash // of each file
	short  []bool      // whether each file ended early
	parity []byte
}

func newEncoder(h *Header) (*encoder, error) {
	code, err := reedsolomon.New(len(h.files), h.parity, reedsolomon.WithCauchyMatrix())
	if err != nil {
		return nil, err
	}
	n := len(h.files)
	e := &encoder{
		h: h, code: code,
		step:   int64(h.shard) * max(1, windowBytes/int64(h.shard*n)),
		window: make([][]byte, n), hashes: make([]hash.Hash, n), short: make([]bool, n),
		parity: make([]byte, 0, int64(h.parity)*h.length()),
	}
	for i := range n {
		h.files[i].sums = nil
		e.hashes[i] = blake.NewStream()
		e.window[i] = make([]byte, min(e.step, h.length()))
	}
	return e, nil
}

// read reads the window at an offset.
func (e *encoder) read(ctx context.Context, s *Set, off int64) error {
	for i := range e.h.files {
		f := &e.h.files[i]
		clear(e.window[i])
		n := min(max(f.size-off, 0), e.step)
		if n == 0 {
			continue
		}
		got, err := s.read(ctx, f.name(), e.window[i][:n], off)
		if err != nil {
			return err
		}
		if int64(got) < n {
			e.short[i] = true
		}
		_, _ = e.hashes[i].Write(e.window[i][:n]) // it never fails
	}
	return nil
}

// encode appends the parity of the window at an offset.
func (e *encoder) encode(off int64) error {
	h, total := e.h, e.h.length()
	for at := off; at < min(off+e.step, total); at += int64(h.shard) {
		width := int(min(int64(h.shard), total-at))
		shards := make([][]byte, len(h.files)+h.parity)
		for i := range h.files {
			shards[i] = e.window[i][at-off:][:width]
			if n := min(h.files[i].size-at, int64(width)); n > 0 {
				h.files[i].sums = append(h.files[i].sums, sumOf(shards[i][:n]))
			}
		}
		for i := range h.parity {
			e.parity = e.parity[:len(e.parity)+width]
			shards[len(h.files)+i] = e.parity[len(e.parity)-width:]
		}
		if err := e.code.Encode(shards); err != nil {
			return err
		}
		for _, p := range shards[len(h.files):] {
			h.sums = append(h.sums, sumOf(p))
		}
	}
	return nil
}

// damagedFiles returns the names of damaged files: those that ended early, and those
// whose hash is not their name.
func (e *encoder) damagedFiles() []string {
	var names []string
	for i := range e.h.files {
		f := &e.h.files[i]
		if e.short[i] || [32]byte(e.hashes[i].Sum(nil)) != f.id {
			names = append(names, f.name())
		}
	}
	return names
}
