// Package message reads and writes the messages of lockdownd and of most services
// of a simulated device.
//
// Memory grows with the bytes that arrive, never with the length that a host announces.
package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// maxRequest is the greatest length of a host's message, in bytes. The longest message
// is Pair, which has three certificates.
const maxRequest = 256 << 10

// ErrLength means that a message is empty or too long.
var ErrLength = errors.New("length of message out of bounds")

// Read reads a message. A message is a big-endian length of 32 bits, followed by a
// property list that is a dictionary.
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

// Write writes a message with one call of w.Write. It encodes v as XML, which every
// host understands.
func Write(w io.Writer, v map[string]any) error {
	b, err := plist.EncodeXML(v)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err = w.Write(append(msg, b...))
	return err
}

// ReadBody reads exactly n bytes. Memory grows with the bytes that arrive, not with n.
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
