package stream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/danielpaulus/go-ios/ios"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// MaxMuxMessage limits a message of usbmuxd, in bytes.
const MaxMuxMessage = 4 << 20

// Mux carries the messages of usbmuxd: property lists with a header of 16 bytes.
type Mux struct {
	raw   net.Conn
	io    *muxIO
	codec *ios.UsbMuxConnection
}

// NewMux returns a Mux on a connection, which it owns from now on.
func NewMux(c net.Conn) *Mux {
	b := &muxIO{Reader: c}
	return &Mux{c, b, ios.NewUsbMuxConnection(ios.NewDeviceConnectionWithRWC(b))}
}

// muxIO reads from the connection, but collects the bytes that go-ios writes,
// since go-ios would log a failure to write.
type muxIO struct {
	io.Reader
	out bytes.Buffer
}

func (m *muxIO) Write(b []byte) (int, error) { return m.out.Write(b) }
func (m *muxIO) Close() error                { return nil }

// Raw returns the connection.
func (m *Mux) Raw() net.Conn { return m.raw }

// Close closes the connection.
func (m *Mux) Close() error { return m.raw.Close() }

// Send writes a message. Its values must have types that exist in property
// lists.
func (m *Mux) Send(ctx context.Context, msg map[string]any) error {
	m.io.out.Reset()
	if err := m.codec.Send(msg); err != nil {
		return err
	}
	return write(ctx, m.raw, m.io.out.Bytes())
}

// Receive reads a message. It waits for at most timeout (0: without limit), and
// refuses messages longer than MaxMuxMessage.
func (m *Mux) Receive(ctx context.Context, timeout time.Duration) (Dict, error) {
	var msg ios.UsbMuxMessage
	err := Do(ctx, m.raw, timeout, func() (err error) {
		msg, err = m.codec.ReadMessage()
		return err
	})
	if err != nil {
		return nil, err
	}
	return DecodeMux(msg.Payload)
}

// DecodeMux decodes the payload of a message of usbmuxd.
func DecodeMux(payload []byte) (Dict, error) {
	if len(payload) > MaxMuxMessage {
		return nil, fmt.Errorf("%w: %d bytes from usbmuxd", plist.ErrFormat, len(payload))
	}
	return Decode(payload)
}
