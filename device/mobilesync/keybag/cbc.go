package keybag

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/snap-backup/snap/internal/aescbc"
)

// ErrPadding says that ciphertext does not end in valid PKCS#7 padding: it is damaged,
// cut off, decrypted with the wrong key, or written by a program that omits padding.
var ErrPadding = errors.New("invalid padding")

// ErrNotCanonical says that encrypting the plaintext again does not restore the
// ciphertext.
var ErrNotCanonical = errors.New("encrypting the content again does not restore the same bytes")

// BlockSize is the length of a cipher block. The length of ciphertext is a multiple of
// BlockSize.
const BlockSize = aescbc.BlockSize

const (
	blockLen = BlockSize
	// bufLen is how much of a stream a buffer holds: enough to make the cost per call
	// small, and little enough for the cache.
	bufLen = 128 << 10
)

// buffer has room for a piece of a stream and for the block that the piece is chained to.
type buffer [blockLen + bufLen]byte

// buffers are shared by all streams of the process. Most files are much smaller than a
// buffer, so a new one for each file would cost more than the cipher.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// EncryptedSize returns the length of the ciphertext of n bytes.
func EncryptedSize(n int64) int64 { return (n/blockLen + 1) * blockLen }

func newCipher(key FileKey) *aescbc.Cipher { return aescbc.New((*[keyLen]byte)(&key)) }

type encrypter struct {
	w      io.Writer
	cipher *aescbc.Cipher
	iv     aescbc.IV
	part   [blockLen]byte // the plaintext of an incomplete block
	parts  int            // its length
	buf    *buffer        // nil until it is needed, and after the end
	n      int            // bytes of ciphertext in buf
	err    error
}

// NewEncrypter returns a writer that encrypts with key and writes to w. Close writes
// the padding, without which the ciphertext is incomplete. Close does not close w.
func NewEncrypter(w io.Writer, key FileKey) io.WriteCloser {
	return &encrypter{w: w, cipher: newCipher(key)}
}

func (s *encrypter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && s.err == nil {
		n := s.write(p)
		p = p[n:]
		written += n
	}
	return written, s.err
}

// write takes some bytes of p and returns how many. It encrypts whole blocks, and keeps
// the bytes of an incomplete one for the next call. It returns 0 after an error.
func (s *encrypter) write(p []byte) int {
	if s.parts > 0 || len(p) < blockLen {
		n := copy(s.part[s.parts:], p)
		if s.parts += n; s.parts == blockLen {
			s.parts = 0
			if s.encrypt(s.part[:]) == 0 {
				return 0
			}
		}
		return n
	}
	return s.encrypt(p[:len(p)/blockLen*blockLen])
}

// encrypt encrypts as many blocks of p as fit into the buffer, and writes the buffer if
// it is full. It returns 0 after an error.
func (s *encrypter) encrypt(p []byte) int {
	if s.buf == nil {
		s.buf = buffers.Get().(*buffer)
	}
	n := min(len(p), bufLen-s.n)
	s.cipher.Encrypt(s.buf[s.n:s.n+n], p[:n], &s.iv)
	if s.n += n; s.n == bufLen {
		s.flush()
	}
	if s.err != nil {
		return 0
	}
	return n
}

// flush writes the ciphertext in the buffer.
func (s *encrypter) flush() {
	if _, err := s.w.Write(s.buf[:s.n]); err != nil {
		s.fail(fmt.Errorf("keybag: encrypt: %w", err))
	}
	s.n = 0
}

// fail ends the stream.
func (s *encrypter) fail(err error) {
	s.err = err
	if s.buf != nil {
		buffers.Put(s.buf)
		s.buf = nil
	}
}

var errEncrypterClosed = errors.New("keybag: encrypt: already closed")

func (s *encrypter) Close() error {
	if errors.Is(s.err, errEncrypterClosed) {
		return nil
	}
	if s.err != nil {
		return s.err
	}
	pad := s.part[s.parts:]
	for i := range pad {
		pad[i] = byte(len(pad))
	}
	s.encrypt(s.part[:])
	if s.err == nil && s.n > 0 {
		s.flush()
	}
	if s.err != nil {
		return s.err
	}
	s.fail(errEncrypterClosed)
	return nil
}

// opener is what a decrypter needs of a cipher.
type opener interface {
	Decrypt(dst, src []byte, iv *aescbc.IV)
	Restores(plain, ciphertext []byte, iv *aescbc.IV) bool
}

type decrypter struct {
	r      io.Reader
	cipher opener
	iv     aescbc.IV
	verify bool
	buf    *buffer // nil until it is needed, and after the end
	ready  []byte  // ciphertext to decrypt; part of buf
	held   []byte  // the last block that was read, which may contain the padding; follows ready
	one    [blockLen]byte
	plain  []byte // decrypted and not yet returned; part of one
	ended  bool   // all of r was read
	err    error  // returned after plain
}

// NewDecrypter returns a reader of the plaintext of r. The reader ends with io.EOF if
// the padding is valid, and with ErrPadding otherwise, such as for an empty r. The
// plaintext must not be trusted before io.EOF. Even then it may be damaged, since CBC
// does not authenticate.
func NewDecrypter(r io.Reader, key FileKey) io.Reader {
	return &decrypter{r: r, cipher: newCipher(key)}
}

// NewVerifier returns a reader of the plaintext of r, like NewDecrypter. The reader
// also verifies that NewEncrypter restores the same ciphertext: it encrypts every block
// that it has decrypted, the padding too, and compares. It ends with ErrNotCanonical if a
// block differs, and returns none of the bytes that follow.
func NewVerifier(r io.Reader, key FileKey) io.Reader {
	return &decrypter{r: r, cipher: newCipher(key), verify: true}
}

// Read implements io.Reader. After the end it returns the same error again.
func (o *decrypter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(o.plain) == 0 {
		if o.err != nil {
			return 0, o.err
		}
		switch {
		case len(o.ready) == 0 && o.ended:
			o.last()
		case len(o.ready) == 0:
			o.fill()
		case len(p) < blockLen:
			if o.decrypt(o.one[:], o.ready[:blockLen]) {
				o.plain, o.ready = o.one[:], o.ready[blockLen:]
			}
		default:
			n := min(len(p)/blockLen*blockLen, len(o.ready))
			if o.decrypt(p[:n], o.ready[:n]) {
				o.ready = o.ready[n:]
				return n, nil
			}
		}
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

// decrypt decrypts blocks. If verify is set, and encrypting the result does not restore
// the same blocks, decrypt ends the stream and returns false.
func (o *decrypter) decrypt(dst, src []byte) bool {
	before := o.iv
	o.cipher.Decrypt(dst, src, &o.iv)
	if o.verify && !o.cipher.Restores(dst, src, &before) {
		o.end(fmt.Errorf("keybag: verify: %w", ErrNotCanonical))
		return false
	}
	return true
}

// end ends the stream after what is in plain.
func (o *decrypter) end(err error) {
	o.err = err
	if o.buf != nil {
		buffers.Put(o.buf)
		o.buf, o.ready, o.held = nil, nil, nil
	}
}

// fill reads ciphertext. It holds back the last complete block.
func (o *decrypter) fill() {
	if o.buf == nil {
		o.buf = buffers.Get().(*buffer)
	}
	kept := copy(o.buf[:], o.held)
	n, err := io.ReadFull(o.r, o.buf[kept:])
	n += kept
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		o.ended = true
		if n == 0 || n%blockLen != 0 {
			o.end(fmt.Errorf("keybag: decrypt: the length is not a positive multiple of %d: %w", blockLen, ErrPadding))
			return
		}
	default:
		o.end(fmt.Errorf("keybag: decrypt: %w", err))
		return
	}
	o.ready, o.held = o.buf[:n-blockLen], o.buf[n-blockLen:n]
}

// last decrypts the block with the padding.
func (o *decrypter) last() {
	if !o.decrypt(o.one[:], o.held) {
		return
	}
	pad, ok := padding(o.one[:])
	if !ok {
		o.end(fmt.Errorf("keybag: decrypt: %w", ErrPadding))
		return
	}
	o.plain = o.one[:blockLen-pad]
	o.end(io.EOF)
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
