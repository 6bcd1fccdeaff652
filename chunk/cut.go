package chunk

import (
	"bytes"
	"errors"
	"io"

	"github.com/restic/chunker"
)

// Sizes of chunks, in bytes.
const (
	// SQLiteSize is the length of all chunks of an SQLite database except the
	// last. Databases change in place by pages, so fixed boundaries keep unchanged
	// chunks equal. 64 KiB is a multiple of every page size.
	SQLiteSize = 64 << 10
	// MediaSize is the length of all chunks of a photo or film except the last. Such a
	// file does not change in part, so it is not worth the time to look for boundaries.
	MediaSize = 1 << 20
	// MinSize is the minimum length of content-defined chunks except the last one of a
	// file. A file of at most this length is one chunk.
	MinSize = chunker.MinSize
	// MaxSize is the maximum length of a chunk.
	MaxSize = chunker.MaxSize
)

// sqliteMagic is at the beginning of every SQLite 3 database.
const sqliteMagic = "SQLite format 3\x00"

// isMedia reports whether content begins like a photo or film: JPEG, PNG, or the container
// of HEIC, MP4 and QuickTime.
func isMedia(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\xff\xd8\xff")) || bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")) ||
		len(head) >= 8 && string(head[4:8]) == "ftyp"
}

// Cutter cuts streams into chunks, one after another. It is not safe for concurrent use.
type Cutter struct {
	pol   Polynomial
	rabin *chunker.Chunker // made when first needed

	src   io.Reader
	head  []byte // the beginning of the stream
	at    int    // number of bytes of head that Next has returned
	mode  cutMode
	fixed int // length of the chunks in mode cutFixed
	ended bool
}

type cutMode uint8

const (
	cutOne cutMode = iota // the stream is one chunk, head
	cutFixed
	cutContent
)

// NewCutter returns a cutter for a repository's polynomial.
func NewCutter(pol Polynomial) *Cutter {
	return &Cutter{pol: pol, head: make([]byte, 0, MinSize)}
}

// Reset begins a new stream. It reads up to MinSize bytes to choose how to cut the
// stream.
func (c *Cutter) Reset(src io.Reader) error {
	c.src, c.at, c.ended = src, 0, false
	n, err := io.ReadFull(src, c.head[:MinSize])
	c.head = c.head[:n]
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case err != nil && !ended:
		return err
	case bytes.HasPrefix(c.head, []byte(sqliteMagic)):
		c.mode, c.fixed = cutFixed, SQLiteSize
	case ended:
		c.mode = cutOne
	case isMedia(c.head):
		c.mode, c.fixed = cutFixed, MediaSize
	default:
		c.byContent()
	}
	return nil
}

func (c *Cutter) byContent() {
	c.mode = cutContent
	rest := io.MultiReader(bytes.NewReader(c.head), c.src)
	if c.rabin == nil {
		c.rabin = chunker.New(rest, c.pol)
	} else {
		c.rabin.Reset(rest, c.pol)
	}
}

// Media reports whether the stream is a photo or film that will be cut every MediaSize
// bytes.
func (c *Cutter) Media() bool { return c.mode == cutFixed && c.fixed == MediaSize }

// CutMediaByContent makes Next cut a photo or film by content, as earlier versions did. It
// must be called before the first Next.
func (c *Cutter) CutMediaByContent() {
	if c.Media() {
		c.byContent()
	}
}

// BufferSize returns the capacity that the buffer of Next should have for this stream.
func (c *Cutter) BufferSize() int {
	switch c.mode {
	case cutContent:
		return MaxSize
	case cutFixed:
		return c.fixed
	default:
		return 0
	}
}

// Next returns the next chunk, or io.EOF after the last one. An empty stream has no
// chunks. The returned bytes are in buf or in a buffer of the cutter, and are valid
// until the next call. buf should have a capacity of BufferSize.
func (c *Cutter) Next(buf []byte) ([]byte, error) {
	if c.ended {
		return nil, io.EOF
	}
	switch c.mode {
	case cutOne:
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
	if left := len(c.head) - c.at; left >= c.fixed {
		c.at += c.fixed
		return c.head[c.at-c.fixed : c.at], nil
	}
	if cap(buf) < c.fixed {
		buf = make([]byte, c.fixed)
	}
	buf = buf[:c.fixed]
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
