// Package message reads and writes the messages of lockdownd and of most services
// of a simulated device.
//
// Memory grows with what arrives, never with the length that a host announces.
package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// maxRequest is the longest message of a host, in bytes. Pair is the longest one,
// with three certificates.
const maxRequest = 256 << 10

// ErrLength means that a message is empty or too long.
var ErrLength = errors.New("length of message out of bounds")

// Read reads a message: a big-endian length of 32 bits and a property list that is
// a dictionary.
func Read(r io.Reader) (map[string]any, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxRequest {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrLength, n, maxRequest)
	}
	b, err := ReadBody(r, int(n))
	if err != nil {
		return nil, err
	}
	return plist.Dict(b)
}

// Write writes a message as XML, which every host understands, with one call of
// w.Write.
func Write(w io.Writer, v map[string]any) error {
	b, err := plist.EncodeXML(v)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err = w.Write(append(msg, b...))
	return err
}

// ReadBody reads exactly n bytes. Memory grows with what arrives, not with n.
func ReadBody(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	var b bytes.Buffer
	b.Grow(min(n, step))
	_, err := io.CopyN(&b, r, int64(n))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}
