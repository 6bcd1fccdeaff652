package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/restic/chunker"
)

// Sizes of chunks, in bytes.
const (
	// SQLiteSize is the length of every chunk of an SQLite database but the
	// last. Databases change in place by pages, so fixed cuts keep unchanged
	// parts equal; 64 KiB is a multiple of every page size.
	SQLiteSize = 64 << 10
	// MinSize is the smallest content-defined chunk that is not the last of
	// its file; a file of at most this size is one chunk.
	MinSize = chunker.MinSize
	// MaxSize is the largest chunk.
	MaxSize = chunker.MaxSize
)

// sqliteMagic opens every SQLite 3 database.
const sqliteMagic = "SQLite format 3\x00"

// Polynomial selects where content is cut. It is drawn at random for each
// repository and kept secret, so that chunk lengths do not identify content.
type Polynomial = chunker.Pol

// NewPolynomial draws a random irreducible polynomial.
func NewPolynomial(rand io.Reader) (Polynomial, error) {
	p, err := chunker.DerivePolynomial(rand)
	if err != nil {
		return 0, fmt.Errorf("draw a chunker polynomial: %w", err)
	}
	return p, nil
}

// Cutter cuts one stream after the other. It is not safe for concurrent use.
type Cutter struct {
	pol   Polynomial
	rabin *chunker.Chunker // made at the first file that needs one

	src   io.Reader
	head  []byte // what has been read ahead to choose the way to cut
	at    int    // how much of head has been handed out
	mode  cutMode
	ended bool
}

type cutMode uint8

const (
	cutWhole cutMode = iota // head is all there is
	cutFixed
	cutContent
)

// NewCutter returns a cutter for a repository's polynomial.
func NewCutter(pol Polynomial) *Cutter {
	return &Cutter{pol: pol, head: make([]byte, 0, MinSize)}
}

// Reset begins a new stream. It reads up to MinSize bytes of it to choose how
// to cut.
func (c *Cutter) Reset(src io.Reader) error {
	c.src, c.at, c.ended = src, 0, false
	n, err := io.ReadFull(src, c.head[:MinSize])
	c.head = c.head[:n]
	whole := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case err != nil && !whole:
		return err
	case bytes.HasPrefix(c.head, []byte(sqliteMagic)):
		c.mode = cutFixed
	case whole:
		c.mode = cutWhole
	default:
		c.mode = cutContent
		rest := io.MultiReader(bytes.NewReader(c.head), src)
		if c.rabin == nil {
			c.rabin = chunker.New(rest, c.pol)
		} else {
			c.rabin.Reset(rest, c.pol)
		}
	}
	return nil
}

// Next returns the next chunk, or io.EOF after the last one. An empty stream
// has no chunks. The chunk may lie in buf, which should have a capacity of
// MaxSize, or in the cutter; it is valid until the next call.
func (c *Cutter) Next(buf []byte) ([]byte, error) {
	if c.ended {
		return nil, io.EOF
	}
	switch c.mode {
	case cutWhole:
		c.ended = true
		if len(c.head) == 0 {
			return nil, io.EOF
		}
		return c.head, nil
	case cutContent:
		piece, err := c.rabin.Next(buf[:0])
		if err != nil {
			return nil, err
		}
		return piece.Data, nil
	default:
		return c.nextFixed(buf)
	}
}

func (c *Cutter) nextFixed(buf []byte) ([]byte, error) {
	if left := len(c.head) - c.at; left >= SQLiteSize {
		c.at += SQLiteSize
		return c.head[c.at-SQLiteSize : c.at], nil
	}
	if cap(buf) < SQLiteSize {
		buf = make([]byte, SQLiteSize)
	}
	buf = buf[:SQLiteSize]
	n := copy(buf, c.head[c.at:])
	c.at = len(c.head)
	m, err := io.ReadFull(c.src, buf[n:])
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		c.ended = true
	case err != nil:
		return nil, err
	}
	if n+m == 0 {
		return nil, io.EOF
	}
	return buf[:n+m], nil
}
