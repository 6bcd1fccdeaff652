package keybag

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// ErrPadding says that sealed bytes do not end in valid PKCS#7 padding: damaged, cut short, opened with the wrong key, or
// written by a tool that leaves the padding out.
var ErrPadding = errors.New("invalid padding")

// BlockSize is what the length of sealed bytes is a multiple of.
const BlockSize = aes.BlockSize

const (
	blockLen = BlockSize
	// bufLen is the piece that streams work in: large enough to make the cost per call vanish, small enough for the cache.
	bufLen = 128 << 10
	// firstBufLen is where their buffers start: most files of a backup are smaller, and there are tens of thousands.
	firstBufLen = 4 << 10
)

var zeroIV [blockLen]byte

// SealedSize returns the length of the sealed form of n plain bytes.
func SealedSize(n int64) int64 { return (n/blockLen + 1) * blockLen }

func newBlock(key FileKey) cipher.Block {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("keybag: AES refused a 32-byte key: " + err.Error()) // unreachable: the length is a constant
	}
	return block
}

type sealer struct {
	w    io.Writer
	mode cipher.BlockMode
	buf  []byte
	n    int // plain bytes waiting in buf
	err  error
}

// NewSealer returns a writer that seals what is written to it under key and passes it on to w. Close writes the padding; without it the
// sealed form is incomplete. Close does not close w.
func NewSealer(w io.Writer, key FileKey) io.WriteCloser {
	return &sealer{w: w, mode: cipher.NewCBCEncrypter(newBlock(key), zeroIV[:]), buf: make([]byte, firstBufLen)}
}

func (s *sealer) Write(p []byte) (int, error) {
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

// flush seals the waiting bytes, which are whole blocks.
func (s *sealer) flush() {
	s.mode.CryptBlocks(s.buf[:s.n], s.buf[:s.n])
	if _, err := s.w.Write(s.buf[:s.n]); err != nil {
		s.err = fmt.Errorf("keybag: seal: %w", err)
	}
	s.n = 0
}

var errSealerClosed = errors.New("keybag: seal: already closed")

func (s *sealer) Close() error {
	if s.err == errSealerClosed {
		return nil
	}
	if s.err != nil {
		return s.err
	}
	pad := blockLen - s.n%blockLen
	for range pad {
		s.buf[s.n] = byte(pad) // fits: Write never leaves the buffer full
		s.n++
	}
	s.flush()
	if s.err != nil {
		return s.err
	}
	s.err = errSealerClosed
	return nil
}

type opener struct {
	r     io.Reader
	mode  cipher.BlockMode
	buf   []byte
	held  []byte // the last sealed block read so far: whether it is the one with the padding shows only at the end of r
	plain []byte // opened, not yet handed out; part of buf
	err   error
}

// NewOpener returns a reader of the plain form of the sealed bytes in r. Bytes are handed out as they are opened; whether the
// padding is valid shows at the end, as io.EOF or ErrPadding, so a reader must not trust content before it has seen io.EOF.
// CBC has no integrity of its own: valid padding does not prove that the content is undamaged. An empty r gives ErrPadding.
func NewOpener(r io.Reader, key FileKey) io.Reader {
	return &opener{r: r, mode: cipher.NewCBCDecrypter(newBlock(key), zeroIV[:]), buf: make([]byte, firstBufLen+blockLen)}
}

func (o *opener) Read(p []byte) (int, error) {
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

func (o *opener) fill() {
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
		o.err = fmt.Errorf("keybag: open: %w", err)
	}
}

// last opens the sealed bytes that end the stream. Bytes in front of a bad last block are still handed out.
func (o *opener) last(sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || len(sealed)%blockLen != 0 {
		return nil, fmt.Errorf("keybag: open: sealed length is not a positive multiple of %d: %w", blockLen, ErrPadding)
	}
	o.mode.CryptBlocks(sealed, sealed)
	pad, ok := padding(sealed)
	if !ok {
		return sealed[:len(sealed)-blockLen], fmt.Errorf("keybag: open: %w", ErrPadding)
	}
	return sealed[:len(sealed)-pad], io.EOF
}

// padding checks the PKCS#7 padding at the end of plain strictly and returns its length, 1 to 16.
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
