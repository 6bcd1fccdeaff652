package keybag

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// ErrPadding says that ciphertext does not end in valid PKCS#7 padding: it is damaged,
// cut off, decrypted with the wrong key, or written by a program that omits padding.
var ErrPadding = errors.New("invalid padding")

// BlockSize is the length of a cipher block. The length of ciphertext is a multiple of
// BlockSize.
const BlockSize = aes.BlockSize

const (
	blockLen = BlockSize
	// bufLen is the size of the buffers of streams: large enough to make the cost per
	// call small, and small enough for the cache.
	bufLen = 128 << 10
	// firstBufLen is the initial size of these buffers: most files of a backup are
	// smaller.
	firstBufLen = 4 << 10
)

var zeroIV [blockLen]byte

// EncryptedSize returns the length of the ciphertext of n bytes.
func EncryptedSize(n int64) int64 { return (n/blockLen + 1) * blockLen }

func newBlock(key FileKey) cipher.Block {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("keybag: AES refused a 32-byte key: " + err.Error()) // unreachable: the length is a constant
	}
	return block
}

type encrypter struct {
	w    io.Writer
	mode cipher.BlockMode
	buf  []byte
	n    int // plaintext bytes in buf
	err  error
}

// NewEncrypter returns a writer that encrypts with key and writes to w. Close writes
// the padding, without which the ciphertext is incomplete. Close does not close w.
func NewEncrypter(w io.Writer, key FileKey) io.WriteCloser {
	return &encrypter{w: w, mode: cipher.NewCBCEncrypter(newBlock(key), zeroIV[:]), buf: make([]byte, firstBufLen)}
}

func (s *encrypter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if s.err != nil {
			return written, s.err
		}
		n := copy(s.buf[s.n:], p)
		s.n += n
		p = p[n:]
		if s.n == len(s.buf) {
			s.flush()
			if s.err != nil {
				return written, s.err
			}
			if len(s.buf) < bufLen && len(p) > 0 {
				s.buf = make([]byte, bufLen)
			}
		}
		written += n
	}
	return written, s.err
}

// flush encrypts and writes the bytes in the buffer, which are complete blocks.
func (s *encrypter) flush() {
	s.mode.CryptBlocks(s.buf[:s.n], s.buf[:s.n])
	if _, err := s.w.Write(s.buf[:s.n]); err != nil {
		s.err = fmt.Errorf("keybag: encrypt: %w", err)
	}
	s.n = 0
}

var errEncrypterClosed = errors.New("keybag: encrypt: already closed")

func (s *encrypter) Close() error {
	if errors.Is(s.err, errEncrypterClosed) {
		return nil
	}
	if s.err != nil {
		return s.err
	}
	pad := blockLen - s.n%blockLen
	for range pad {
		s.buf[s.n] = byte(pad) // there is room, since Write never leaves the buffer full
		s.n++
	}
	s.flush()
	if s.err != nil {
		return s.err
	}
	s.err = errEncrypterClosed
	return nil
}

type decrypter struct {
	r     io.Reader
	mode  cipher.BlockMode
	buf   []byte
	held  []byte // the last ciphertext block read, which may contain the padding
	plain []byte // decrypted and not yet returned; part of buf
	err   error
}

// NewDecrypter returns a reader of the plaintext of r. The reader ends with io.EOF if
// the padding is valid, and with ErrPadding otherwise, such as for an empty r. The
// plaintext must not be trusted before io.EOF. Even then it may be damaged, since CBC
// does not authenticate.
func NewDecrypter(r io.Reader, key FileKey) io.Reader {
	return &decrypter{r: r, mode: cipher.NewCBCDecrypter(newBlock(key), zeroIV[:]), buf: make([]byte, firstBufLen+blockLen)}
}

func (o *decrypter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(o.plain) == 0 {
		if o.err != nil {
			return 0, o.err
		}
		o.fill()
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

func (o *decrypter) fill() {
	buf := o.buf
	if o.held != nil && len(buf) < bufLen {
		buf = make([]byte, bufLen+blockLen)
	}
	kept := copy(buf, o.held)
	o.buf = buf
	n, err := io.ReadFull(o.r, o.buf[kept:])
	n += kept
	switch {
	case err == nil:
		end := len(o.buf) - blockLen
		o.plain, o.held = o.buf[:end], o.buf[end:]
		o.mode.CryptBlocks(o.plain, o.plain)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		o.plain, o.err = o.last(o.buf[:n])
	default:
		o.err = fmt.Errorf("keybag: decrypt: %w", err)
	}
}

// last decrypts the end of the stream. If the padding is invalid, it still returns
// the bytes before the last block.
func (o *decrypter) last(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) == 0 || len(ciphertext)%blockLen != 0 {
		return nil, fmt.Errorf("keybag: decrypt: the length is not a positive multiple of %d: %w", blockLen, ErrPadding)
	}
	o.mode.CryptBlocks(ciphertext, ciphertext)
	pad, ok := padding(ciphertext)
	if !ok {
		return ciphertext[:len(ciphertext)-blockLen], fmt.Errorf("keybag: decrypt: %w", ErrPadding)
	}
	return ciphertext[:len(ciphertext)-pad], io.EOF
}

// padding checks the PKCS#7 padding at the end of plain and returns its length, 1 to
// 16.
func padding(plain []byte) (int, bool) {
	if len(plain) < blockLen {
		return 0, false
	}
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > blockLen {
		return 0, false
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return 0, false
		}
	}
	return pad, true
}
