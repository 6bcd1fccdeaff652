// Package plistmsg reads and writes the messages of a device's services:
// property lists behind a length, a 32-bit big-endian number.
//
// What comes in is decoded under bounds of size, depth and number of values and
// never panics. It turns into string, bool, uint64, int64 (negative numbers
// only), float64, []byte, time.Time, []any and map[string]any.
package plistmsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"howett.net/plist"

	"github.com/snap-backup/snap/device/mobilesync/bplist"
)

const (
	// Limit is the length of message that suits most services, in bytes.
	Limit = 16 << 20
	// maxDepth bounds how deep containers nest, maxValues how many values one
	// message holds. Messages of services are a few levels deep.
	maxDepth  = 64
	maxValues = 1 << 20
	// step bounds what is allocated on the word of a length alone.
	step = 64 << 10
)

var (
	// ErrFormat says that bytes are not a sound property list.
	ErrFormat = errors.New("not a sound property list")
	// ErrLength says that a message claims to be empty or longer than allowed.
	ErrLength = errors.New("length of message out of bounds")
)

// Decode decodes one XML or binary property list.
func Decode(data []byte) (any, error) {
	if bplist.Is(data) {
		return decodeBinary(data)
	}
	return decodeXML(data)
}

// DecodeDict decodes a property list whose outermost value is a dictionary.
func DecodeDict(data []byte) (map[string]any, error) {
	v, err := Decode(data)
	if err != nil {
		return nil, err
	}
	dict, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: %T where a dictionary is expected", ErrFormat, v)
	}
	return dict, nil
}

// Encode writes v as an XML property list, which every client understands.
func Encode(v any) ([]byte, error) { return plist.MarshalIndent(v, plist.XMLFormat, "\t") }

// EncodeBinary writes v as a binary property list.
func EncodeBinary(v any) ([]byte, error) { return plist.Marshal(v, plist.BinaryFormat) }

// Read reads the bytes of one message of at most limit bytes, without its
// length. It returns io.EOF if the stream ends before the message begins.
func Read(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are", ErrLength, n, limit)
	}
	return ReadBody(r, int(n))
}

// ReadBody reads exactly n bytes; memory grows with what arrives, not with n.
func ReadBody(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(min(n, step))
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b.Bytes(), nil
}

// ReadDict reads one message that is a dictionary.
func ReadDict(r io.Reader, limit int) (map[string]any, error) {
	b, err := Read(r, limit)
	if err != nil {
		return nil, err
	}
	return DecodeDict(b)
}

// Write writes v as one message, an XML property list, in one call of w.Write.
func Write(w io.Writer, v any) error {
	b, err := Encode(v)
	if err != nil {
		return err
	}
	return WriteBytes(w, b)
}

// WriteBytes writes one message that is encoded already.
func WriteBytes(w io.Writer, b []byte) error {
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err := w.Write(append(msg, b...))
	return err
}
