package keybag

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrNotCanonical says that encrypting the plaintext again does not restore the
// ciphertext.
var ErrNotCanonical = errors.New("encrypting the content again does not restore the same bytes")

// NewVerifier returns a reader of the plaintext of r, like NewDecrypter. The reader
// also verifies that NewEncrypter restores the same ciphertext: it encrypts the
// plaintext again and compares. It ends with io.EOF if both ciphertexts are the same,
// and otherwise with ErrNotCanonical or ErrPadding. Memory is bounded by a few
// buffers.
func NewVerifier(r io.Reader, key FileKey) io.Reader {
	v := &verifier{}
	v.decrypter = NewDecrypter(io.TeeReader(r, &v.expected), key)
	v.encrypter = NewEncrypter(v, key)
	return v
}

// verifier passes the plaintext to an encrypter, which writes to the verifier itself.
type verifier struct {
	decrypter io.Reader
	encrypter io.WriteCloser
	expected  bytes.Buffer // read from the source, not yet compared
	err       error        // the error that ended reading
}

// Read implements io.Reader. After the end it returns the same error again.
func (v *verifier) Read(b []byte) (n int, err error) {
	if v.err != nil {
		return 0, v.err
	}
	n, v.err = v.read(b)
	return n, v.err
}

func (v *verifier) read(b []byte) (int, error) {
	n, err := v.decrypter.Read(b)
	if _, serr := v.encrypter.Write(b[:n]); serr != nil {
		return n, serr
	}
	if errors.Is(err, io.EOF) {
		if cerr := v.encrypter.Close(); cerr != nil {
			return n, cerr
		}
		if v.expected.Len() > 0 {
			return n, fmt.Errorf("keybag: verify: %d bytes too many: %w", v.expected.Len(), ErrNotCanonical)
		}
	}
	return n, err
}

// Write compares the output of the encrypter with the source.
func (v *verifier) Write(again []byte) (int, error) {
	if !bytes.Equal(v.expected.Next(len(again)), again) {
		return 0, fmt.Errorf("keybag: verify: %w", ErrNotCanonical)
	}
	return len(again), nil
}
