package keybag

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync"
)

// OpenerAt gives random access to the plain form of the size sealed bytes of r, without opening more than is asked for: a range
// needs its own sealed blocks and the one before. It checks the padding at once and takes it off plainSize; ErrPadding when it
// is not valid. The ReaderAt may be used by several goroutines when r may.
func OpenerAt(r io.ReaderAt, size int64, key FileKey) (plain io.ReaderAt, plainSize int64, err error) {
	opened, err := newOpenerAt(r, size, key)
	if err != nil {
		return nil, 0, err
	}
	if size == 0 {
		return nil, 0, fmt.Errorf("keybag: open: nothing sealed: %w", ErrPadding)
	}
	var last [blockLen]byte
	if _, err := opened.ReadAt(last[:], size-blockLen); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	pad, ok := padding(last[:])
	if !ok {
		return nil, 0, fmt.Errorf("keybag: open: %w", ErrPadding)
	}
	opened.plainSize = size - int64(pad)
	return opened, opened.plainSize, nil
}

// UnpaddedOpenerAt is OpenerAt for sealed bytes whose padding was left out or must be looked at: it hands out all size bytes.
// A size that is not a multiple of 16 gives ErrPadding.
func UnpaddedOpenerAt(r io.ReaderAt, size int64, key FileKey) (io.ReaderAt, error) {
	opened, err := newOpenerAt(r, size, key)
	if err != nil {
		return nil, err
	}
	return opened, nil
}

func newOpenerAt(r io.ReaderAt, size int64, key FileKey) (*openerAt, error) {
	if size < 0 || size%blockLen != 0 {
		return nil, fmt.Errorf("keybag: open: sealed length %d is not a multiple of %d: %w", size, blockLen, ErrPadding)
	}
	opened := &openerAt{r: r, block: newBlock(key), plainSize: size}
	opened.scratch.New = func() any { return new([bufLen + blockLen]byte) }
	return opened, nil
}

type openerAt struct {
	r         io.ReaderAt
	block     cipher.Block
	plainSize int64
	scratch   sync.Pool
}

// ReadAt implements io.ReaderAt.
func (o *openerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("keybag: open: negative offset %d", off)
	}
	if off >= o.plainSize {
		return 0, io.EOF
	}
	short := int64(len(p)) > o.plainSize-off
	if short {
		p = p[:o.plainSize-off]
	}
	scratch := o.scratch.Get().(*[bufLen + blockLen]byte)
	defer o.scratch.Put(scratch)
	done := 0
	for done < len(p) {
		plain, err := o.open(scratch[:], off+int64(done), len(p)-done)
		if err != nil {
			return done, err
		}
		done += copy(p[done:], plain)
	}
	if short {
		return done, io.EOF
	}
	return done, nil
}

// open returns plain bytes from off on: at most want, at least one; they live in scratch.
func (o *openerAt) open(scratch []byte, off int64, want int) ([]byte, error) {
	first := off / blockLen * blockLen
	skip := int(off - first)
	n := (skip + want + blockLen - 1) / blockLen * blockLen
	n = min(n, len(scratch)-blockLen)
	sealed := scratch[blockLen : blockLen+n]
	var iv []byte
	if first == 0 {
		iv = zeroIV[:]
		if err := o.readFull(sealed, 0); err != nil {
			return nil, err
		}
	} else {
		iv = scratch[:blockLen]
		if err := o.readFull(scratch[:blockLen+n], first-blockLen); err != nil {
			return nil, err
		}
	}
	cipher.NewCBCDecrypter(o.block, iv).CryptBlocks(sealed, sealed)
	return sealed[skip:min(n, skip+want)], nil
}

func (o *openerAt) readFull(p []byte, off int64) error {
	n, err := o.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("keybag: open: sealed bytes at %d: %w", off, err)
}
