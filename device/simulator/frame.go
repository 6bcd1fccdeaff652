package simulator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// maxRequest bounds a message of a host, in bytes. Pair is the longest, with
// three certificates.
const maxRequest = 256 << 10

// errLength says that a message claims to be empty or longer than allowed.
var errLength = errors.New("length of message out of bounds")

// readMessage reads one message of lockdownd and of most services: a big-endian
// length of 32 bits and a property list that is a dictionary.
func readMessage(r io.Reader) (map[string]any, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxRequest {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are possible", errLength, n, maxRequest)
	}
	b, err := readBody(r, int(n))
	if err != nil {
		return nil, err
	}
	return plist.Dict(b)
}

// writeMessage writes one message as XML, which every host understands, in one
// call of w.Write.
func writeMessage(w io.Writer, v map[string]any) error {
	b, err := plist.EncodeXML(v)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err = w.Write(append(msg, b...))
	return err
}

// readBody reads exactly n bytes; memory grows with what arrives, not with n.
func readBody(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	var b bytes.Buffer
	b.Grow(min(n, step))
	_, err := io.CopyN(&b, r, int64(n))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// framing records a message that was not one. How a connection ends is no
// violation.
func (d *Device) framing(service string, err error) {
	if errors.Is(err, plist.ErrFormat) || errors.Is(err, errLength) {
		d.Violate("%s: %v", service, err)
	}
}
