package afcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/simulator/message"
)

// A packet is a header of 40 bytes (magic and four little-endian 64-bit numbers:
// total length, length without the payload, packet number, operation), the
// operation's arguments and a payload.
const (
	magic     = "CFA6LPAA"
	header    = 40
	maxPacket = 16 << 20
	maxFixed  = 64 << 10 // header and arguments
)

// Operation says what a packet requests, or what kind of reply it is.
type Operation uint64

// The operations.
const (
	OpStatusReply Operation = 0x01
	OpDataReply   Operation = 0x02
	OpReadDir     Operation = 0x03
	OpTruncate    Operation = 0x07
	OpRemove      Operation = 0x08
	OpMakeDir     Operation = 0x09
	OpStat        Operation = 0x0a
	OpDeviceInfo  Operation = 0x0b
	OpOpen        Operation = 0x0d
	OpOpenReply   Operation = 0x0e
	OpRead        Operation = 0x0f
	OpWrite       Operation = 0x10
	OpSeek        Operation = 0x11
	OpTell        Operation = 0x12
	OpTellReply   Operation = 0x13
	OpClose       Operation = 0x14
	OpSetSize     Operation = 0x15
	OpRename      Operation = 0x18
	OpLock        Operation = 0x1b
	OpSetTime     Operation = 0x1e
	OpRemoveAll   Operation = 0x22
)

// Status is the result of an operation.
type Status uint64

// The statuses.
const (
	OK              Status = 0
	ReadError       Status = 4
	InvalidArgument Status = 7
	NotFound        Status = 8
	IsDirectory     Status = 9
	Permission      Status = 10
	Unsupported     Status = 15
	Exists          Status = 16
	NoSpace         Status = 18
	WouldBlock      Status = 19
	NoResources     Status = 3
	NotEmpty        Status = 33
)

// Packet is a packet of AFC.
type Packet struct {
	Number  uint64
	Op      Operation
	Args    []byte
	Payload []byte
}

var errFormat = errors.New("not an AFC packet")

// ReadPacket reads a packet.
func ReadPacket(r io.Reader) (Packet, error) {
	var h [header]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Packet{}, err
	}
	if string(h[:8]) != magic {
		return Packet{}, fmt.Errorf("%w: it begins with %q", errFormat, h[:8])
	}
	total, fixed := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[16:])
	if fixed < header || fixed > maxFixed || total < fixed || total > maxPacket {
		return Packet{}, fmt.Errorf("%w: lengths %d and %d", errFormat, total, fixed)
	}
	p := Packet{Number: binary.LittleEndian.Uint64(h[24:]), Op: Operation(binary.LittleEndian.Uint64(h[32:]))}
	var err error
	if p.Args, err = message.ReadBody(r, int(fixed-header)); err != nil {
		return p, err
	}
	p.Payload, err = message.ReadBody(r, int(total-fixed))
	return p, err
}

// Append appends the packet to dst.
func (p Packet) Append(dst []byte) []byte {
	dst = append(dst, magic...)
	fixed := uint64(header + len(p.Args))
	for _, n := range []uint64{fixed + uint64(len(p.Payload)), fixed, p.Number, uint64(p.Op)} {
		dst = binary.LittleEndian.AppendUint64(dst, n)
	}
	return append(append(dst, p.Args...), p.Payload...)
}

// Numbers returns the first n 64-bit numbers of the arguments, and the rest.
func (p Packet) Numbers(n int) (found []uint64, rest []byte, ok bool) {
	if len(p.Args) < 8*n {
		return nil, nil, false
	}
	for i := range n {
		found = append(found, binary.LittleEndian.Uint64(p.Args[8*i:]))
	}
	return found, p.Args[8*n:], true
}

// text returns the path in b. Not all hosts end a path with a zero byte.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
