package simulator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// An AFC packet is a header of 40 bytes (magic and four little-endian 64-bit
// numbers: whole length, length up to the payload, packet number, operation),
// the operation's arguments and a payload.
const (
	afcMagic     = "CFA6LPAA"
	afcHeader    = 40
	maxAFCPacket = 16 << 20
	maxAFCFixed  = 64 << 10 // header and arguments
)

type afcOperation uint64

const (
	afcStatusReply afcOperation = 0x01
	afcDataReply   afcOperation = 0x02
	afcReadDir     afcOperation = 0x03
	afcTruncate    afcOperation = 0x07
	afcRemove      afcOperation = 0x08
	afcMakeDir     afcOperation = 0x09
	afcStat        afcOperation = 0x0a
	afcDeviceInfo  afcOperation = 0x0b
	afcOpen        afcOperation = 0x0d
	afcOpenReply   afcOperation = 0x0e
	afcRead        afcOperation = 0x0f
	afcWrite       afcOperation = 0x10
	afcSeek        afcOperation = 0x11
	afcTell        afcOperation = 0x12
	afcTellReply   afcOperation = 0x13
	afcClose       afcOperation = 0x14
	afcSetSize     afcOperation = 0x15
	afcRename      afcOperation = 0x18
	afcLock        afcOperation = 0x1b
	afcSetTime     afcOperation = 0x1e
	afcRemoveAll   afcOperation = 0x22
)

type afcStatus uint64

const (
	afcOK              afcStatus = 0
	afcReadError       afcStatus = 4
	afcInvalidArgument afcStatus = 7
	afcNotFound        afcStatus = 8
	afcIsDirectory     afcStatus = 9
	afcPermission      afcStatus = 10
	afcUnsupported     afcStatus = 15
	afcExists          afcStatus = 16
	afcNoSpace         afcStatus = 18
	afcWouldBlock      afcStatus = 19
	afcNoResources     afcStatus = 3
	afcNotEmpty        afcStatus = 33
)

type afcPacket struct {
	number  uint64
	op      afcOperation
	args    []byte
	payload []byte
}

var errAFC = errors.New("not an AFC packet")

func readAFCPacket(r io.Reader) (afcPacket, error) {
	var h [afcHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return afcPacket{}, err
	}
	if string(h[:8]) != afcMagic {
		return afcPacket{}, fmt.Errorf("%w: it begins with %q", errAFC, h[:8])
	}
	whole, fixed := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[16:])
	if fixed < afcHeader || fixed > maxAFCFixed || whole < fixed || whole > maxAFCPacket {
		return afcPacket{}, fmt.Errorf("%w: lengths %d and %d", errAFC, whole, fixed)
	}
	p := afcPacket{number: binary.LittleEndian.Uint64(h[24:]), op: afcOperation(binary.LittleEndian.Uint64(h[32:]))}
	var err error
	if p.args, err = readBody(r, int(fixed-afcHeader)); err != nil {
		return p, err
	}
	p.payload, err = readBody(r, int(whole-fixed))
	return p, err
}

func (p afcPacket) append(dst []byte) []byte {
	dst = append(dst, afcMagic...)
	fixed := uint64(afcHeader + len(p.args))
	for _, n := range []uint64{fixed + uint64(len(p.payload)), fixed, p.number, uint64(p.op)} {
		dst = binary.LittleEndian.AppendUint64(dst, n)
	}
	return append(append(dst, p.args...), p.payload...)
}

// numbers takes n 64-bit numbers from the beginning of the arguments.
func (p afcPacket) numbers(n int) (found []uint64, rest []byte, ok bool) {
	if len(p.args) < 8*n {
		return nil, nil, false
	}
	for i := range n {
		found = append(found, binary.LittleEndian.Uint64(p.args[8*i:]))
	}
	return found, p.args[8*n:], true
}

// text takes a path; the zero byte at its end is not always sent.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// serveAFC is the file service.
func (d *Device) serveAFC(ctx context.Context, conn net.Conn) {
	s := &afcSession{dev: d, fs: d.files, handles: map[uint64]*handle{}}
	for {
		p, err := readAFCPacket(conn)
		if err != nil {
			if errors.Is(err, errAFC) {
				d.Violate("%s: %v", AFC, err)
			}
			break
		}
		if p.op == afcLock && s.takesSyncLock(p) {
			d.syncRequested(ctx)
		}
		reply := s.answer(p)
		reply.number = p.number
		if _, err := conn.Write(reply.append(nil)); err != nil {
			break
		}
	}
	s.end(endedByHost(ctx, conn))
}
