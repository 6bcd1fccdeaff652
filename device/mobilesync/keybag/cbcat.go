package keybag

import (
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/internal/aescbc"
)

// DecrypterAt returns a reader of the plaintext of r, and the size of the plaintext. r
// has size bytes. The reader decrypts only what is read from it. The error is
// ErrPadding if the padding is not valid. Several goroutines may use plain if they may
// use r.
func DecrypterAt(r io.ReaderAt, size int64, key FileKey) (plain io.ReaderAt, plainSize int64, err error) {
	decrypter, err := newDecrypterAt(r, size, key)
	if err != nil {
		return nil, 0, err
	}
	if size == 0 {
		return nil, 0, fmt.Errorf("keybag: decrypt: no bytes: %w", ErrPadding)
	}
	var last [blockLen]byte
	if _, err := decrypter.ReadAt(last[:], size-blockLen); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	pad, ok := padding(last[:])
	if !ok {
		return nil, 0, fmt.Errorf("keybag: decrypt: %w", ErrPadding)
	}
	decrypter.plainSize = size - int64(pad)
	return decrypter, decrypter.plainSize, nil
}

// UnpaddedDecrypterAt is like DecrypterAt, but returns any padding as plaintext. It is
// for ciphertext without padding, or to read the padding. The plaintext has size
// bytes. The error is ErrPadding if size is not a multiple of 16.
func UnpaddedDecrypterAt(r io.ReaderAt, size int64, key FileKey) (io.ReaderAt, error) {
	decrypter, err := newDecrypterAt(r, size, key)
	if err != nil {
		return nil, err
	}
	return decrypter, nil
}

func newDecrypterAt(r io.ReaderAt, size int64, key FileKey) (*decrypterAt, error) {
	if size < 0 || size%blockLen != 0 {
		return nil, fmt.Errorf("keybag: decrypt: the length %d is not a multiple of %d: %w", size, blockLen, ErrPadding)
	}
	return &decrypterAt{r: r, cipher: newCipher(key), plainSize: size}, nil
}

type decrypterAt struct {
	r         io.ReaderAt
	cipher    *aescbc.Cipher
	plainSize int64
}

// ReadAt implements io.ReaderAt.
func (o *decrypterAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("keybag: decrypt: negative offset %d", off)
	}
	if off >= o.plainSize {
		return 0, io.EOF
	}
	short := int64(len(p)) > o.plainSize-off
	if short {
		p = p[:o.plainSize-off]
	}
	scratch := buffers.Get().(*buffer)
	defer buffers.Put(scratch)
	done := 0
	for done < len(p) {
		plain, err := o.decrypt(scratch[:], off+int64(done), len(p)-done)
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

// decrypt returns between 1 and want plaintext bytes at off, in scratch.
func (o *decrypterAt) decrypt(scratch []byte, off int64, want int) ([]byte, error) {
	first := off / blockLen * blockLen
	skip := int(off - first)
	n := (skip + want + blockLen - 1) / blockLen * blockLen
	n = min(n, len(scratch)-blockLen)
	ciphertext := scratch[blockLen : blockLen+n]
	var iv aescbc.IV // zero at the beginning
	if first == 0 {
		if err := o.readFull(ciphertext, 0); err != nil {
			return nil, err
		}
	} else {
		if err := o.readFull(scratch[:blockLen+n], first-blockLen); err != nil {
			return nil, err
		}
		iv = aescbc.IV(scratch)
	}
	o.cipher.Decrypt(ciphertext, ciphertext, &iv)
	return ciphertext[skip:min(n, skip+want)], nil
}

func (o *decrypterAt) readFull(p []byte, off int64) error {
	n, err := o.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("keybag: decrypt: read at %d: %w", off, err)
}
