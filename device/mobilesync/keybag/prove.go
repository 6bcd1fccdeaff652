package keybag

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrNotCanonical says that sealing the plain form again would not give the sealed bytes back.
var ErrNotCanonical = errors.New("sealing the content again does not give the same bytes")

// NewProver returns a reader of the plain form of the sealed bytes in r, like NewOpener, that proves on the way that NewSealer
// makes the same bytes of it again: it seals what it hands out and compares. io.EOF means that the proof is complete;
// ErrNotCanonical or ErrPadding that there is none. Memory is bounded by a few buffers.
func NewProver(r io.Reader, key FileKey) io.Reader {
	p := &prover{}
	p.opener = NewOpener(io.TeeReader(r, &p.sealed), key)
	p.sealer = NewSealer(p, key)
	return p
}

// prover feeds what it opens to a sealer, which writes to the prover itself.
type prover struct {
	opener io.Reader
	sealer io.WriteCloser
	sealed bytes.Buffer // read from the source, not yet made again
	err    error        // how it ended
}

// Read implements io.Reader. After the end it gives the same error again.
func (p *prover) Read(b []byte) (n int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	n, p.err = p.read(b)
	return n, p.err
}

func (p *prover) read(b []byte) (int, error) {
	n, err := p.opener.Read(b)
	if _, serr := p.sealer.Write(b[:n]); serr != nil {
		return n, serr
	}
	if errors.Is(err, io.EOF) {
		if cerr := p.sealer.Close(); cerr != nil {
			return n, cerr
		}
		if p.sealed.Len() > 0 {
			return n, fmt.Errorf("keybag: prove: %d bytes too many: %w", p.sealed.Len(), ErrNotCanonical)
		}
	}
	return n, err
}

// Write takes what the sealer makes and compares it with the source.
func (p *prover) Write(made []byte) (int, error) {
	if !bytes.Equal(p.sealed.Next(len(made)), made) {
		return 0, fmt.Errorf("keybag: prove: %w", ErrNotCanonical)
	}
	return len(made), nil
}
