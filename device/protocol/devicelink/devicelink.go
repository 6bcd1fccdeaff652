// Package devicelink is the framing of Apple's backup protocol, for the host and
// for a (simulated) device.
//
//	message   u32be length, property list whose root is an array; its first
//	          element is the message's name
//	file      u32be length, name; then frames of u32be length, one byte of kind,
//	          data; an end frame; a name of length 0 ends the list of files
//
// A peer cannot make the package allocate more than the limit of a message, wait
// longer than the limits of Options, or panic. If storing a file fails, its frames
// are still read to the end, so that both sides stay in step. The package knows the
// meaning of only two kinds of messages: the greeting and the status answer.
//
// Files take hours, so Options limits each read and each write, and not a whole
// exchange as package stream does. The package uses no contexts: closing the
// connection ends a call.
package devicelink

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
)

const (
	// MaxFrame limits the data in a sent frame, in bytes. Much larger frames make the
	// device's backup service use so much memory that the device kills it.
	MaxFrame = 32 << 10
	// MaxName is the longest name of a file, in bytes.
	MaxName = 4096
	// DefaultMaxMessage is the default limit of a message, in bytes: enough to list
	// a folder with a million names.
	DefaultMaxMessage = 256 << 20
)

// NoText replaces the text in messages that have none.
const NoText = "___EmptyParameterString___"

// Names of messages of this package.
const (
	VersionExchange = "DLMessageVersionExchange"
	VersionsOk      = "DLVersionsOk"
	DeviceReady     = "DLMessageDeviceReady"
	StatusResponse  = "DLMessageStatusResponse"
	DisconnectName  = "DLMessageDisconnect"
	ProcessMessage  = "DLMessageProcessMessage"
)

// Status codes of answers.
const (
	StatusOK      = 0
	StatusFailed  = -1
	StatusNoFile  = -6
	StatusExists  = -7
	StatusNotDir  = -8
	StatusIO      = -11
	StatusMulti   = -13 // the payload has a status for each path
	StatusNoSpace = -15
)

// ErrFormat says that the peer does not follow the protocol. The connection cannot
// be used afterwards.
var ErrFormat = errors.New("the peer does not speak DeviceLink")

// Options are the limits of a connection. Zero means no limit, and
// DefaultMaxMessage for MaxMessage.
type Options struct {
	Idle       time.Duration // wait for the first byte of a message
	Busy       time.Duration // wait for more of a message or file
	Write      time.Duration // wait until the peer accepts what is sent
	MaxMessage int           // bytes
	// MaxFrame limits the data in a received frame, in bytes. Devices have little
	// memory; hosts accept frames of any length.
	MaxFrame int
	// Device says that this side is the device, whose error frames have another
	// kind.
	Device bool
}

// Conn is a DeviceLink connection. One goroutine may use it at a time; any may
// call Close.
type Conn struct {
	c    net.Conn
	o    Options
	r    *bufio.Reader
	w    *bufio.Writer
	idle bool // the next read begins a message
	buf  []byte
}

// New returns a Conn on a connection, which it owns from now on.
func New(c net.Conn, o Options) *Conn {
	if o.MaxMessage == 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	l := &Conn{c: c, o: o}
	l.r = bufio.NewReaderSize(deadlined{l}, 256<<10)
	l.w = bufio.NewWriterSize(deadlined{l}, 2*MaxFrame)
	return l
}

// deadlined sets a deadline before each read and write.
type deadlined struct{ l *Conn }

func (d deadlined) Read(b []byte) (int, error) {
	limit := d.l.o.Busy
	if d.l.idle {
		limit = d.l.o.Idle
	}
	if limit > 0 {
		if err := d.l.c.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return 0, err
		}
	}
	return d.l.c.Read(b)
}

func (d deadlined) Write(b []byte) (int, error) {
	if limit := d.l.o.Write; limit > 0 {
		if err := d.l.c.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return 0, err
		}
	}
	return d.l.c.Write(b)
}

// write buffers bytes until the end of their message or list of files.
func (l *Conn) write(parts ...[]byte) error {
	for _, p := range parts {
		if _, err := l.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the connection at once.
func (l *Conn) Close() error { return l.c.Close() }

// length reads the length that begins every message, name and frame. io.EOF means
// that the peer closed the connection before the length.
func (l *Conn) length(idle bool) (uint32, error) {
	var b [4]byte
	l.idle = idle
	_, err := io.ReadFull(l.r, b[:1])
	l.idle = false
	if err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(l.r, b[1:]); err != nil {
		return 0, cut(err)
	}
	return binary.BigEndian.Uint32(b[:]), nil
}

// cut maps io.EOF inside a message or file to io.ErrUnexpectedEOF.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadMessage waits for the next message. The error is io.EOF if the peer closed
// the connection.
func (l *Conn) ReadMessage() (Message, error) {
	n, err := l.length(true)
	if err != nil {
		return nil, err
	}
	if n == 0 || uint64(n) > uint64(l.o.MaxMessage) {
		return nil, fmt.Errorf("%w: a message of %d bytes", ErrFormat, n)
	}
	b, err := l.bytes(int(n))
	if err != nil {
		return nil, err
	}
	v, err := plist.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	m, ok := v.([]any)
	if !ok || len(m) == 0 {
		return nil, fmt.Errorf("%w: a message that is not an array", ErrFormat)
	}
	if _, ok := m[0].(string); !ok {
		return nil, fmt.Errorf("%w: a message without a name", ErrFormat)
	}
	return m, nil
}

// bytes reads n bytes. It allocates memory as they arrive, not for n at once.
func (l *Conn) bytes(n int) ([]byte, error) {
	const step = 1 << 20
	b := make([]byte, 0, min(n, step))
	for len(b) < n {
		at := len(b)
		grow := min(n-at, max(step, at))
		b = append(b, make([]byte, grow)...)
		if _, err := io.ReadFull(l.r, b[at:]); err != nil {
			return nil, cut(err)
		}
	}
	return b, nil
}

// WriteMessage sends a message: its name and its other elements.
func (l *Conn) WriteMessage(v ...any) error {
	b, err := plist.EncodeBinary(v)
	if err != nil {
		return err
	}
	if err := l.write(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b); err != nil {
		return err
	}
	return l.w.Flush()
}

// WriteEncoded sends a message that is too large for memory. The message is a
// property list of size bytes, which encode writes.
func (l *Conn) WriteEncoded(size int64, encode func(io.Writer) error) error {
	if size <= 0 || size > math.MaxUint32 {
		return fmt.Errorf("a message of %d bytes", size)
	}
	if err := l.write(binary.BigEndian.AppendUint32(nil, uint32(size))); err != nil {
		return err
	}
	w := &limitedWriter{l: l, left: size}
	if err := encode(w); err != nil {
		return err
	}
	if w.left != 0 {
		return fmt.Errorf("a message lacks %d of the %d bytes that were announced", w.left, size)
	}
	return l.w.Flush()
}

// limitedWriter writes to the peer, but no more than the announced length.
type limitedWriter struct {
	l    *Conn
	left int64
}

func (w *limitedWriter) Write(b []byte) (int, error) {
	if int64(len(b)) > w.left {
		return 0, errors.New("a message is longer than announced")
	}
	if err := w.l.write(b); err != nil {
		return 0, err
	}
	w.left -= int64(len(b))
	return len(b), nil
}

// Disconnect tells the peer that the conversation is over.
func (l *Conn) Disconnect() error { return l.WriteMessage(DisconnectName, NoText) }

// AcceptVersion is the host's part of the greeting. It accepts the version that the
// device offers, and waits until the device is ready. The version must be at least
// 300, as on every device since iOS 4.
func (l *Conn) AcceptVersion() (major int64, err error) {
	m, err := l.ReadMessage()
	if err != nil {
		return 0, cut(err)
	}
	major, ok := m.Int(1)
	if m.Name() != VersionExchange || !ok || major < 300 {
		return 0, fmt.Errorf("%w: it begins with %q, version %d", ErrFormat, m.Name(), major)
	}
	if err := l.WriteMessage(VersionExchange, VersionsOk, major); err != nil {
		return 0, err
	}
	m, err = l.ReadMessage()
	if err != nil {
		return 0, cut(err)
	}
	if m.Name() != DeviceReady {
		return 0, fmt.Errorf("%w: %q instead of %q", ErrFormat, m.Name(), DeviceReady)
	}
	return major, nil
}

// OfferVersion is the device's part of the greeting. Some hosts answer with the
// latest version that they support instead of the version that was offered.
func (l *Conn) OfferVersion(major int64) error {
	if err := l.WriteMessage(VersionExchange, major, 0); err != nil {
		return err
	}
	m, err := l.ReadMessage()
	if err != nil {
		return cut(err)
	}
	word, _ := m.Text(1)
	if got, _ := m.Int(2); m.Name() != VersionExchange || word != VersionsOk || got < major {
		return fmt.Errorf("%w: version %d was answered by %v", ErrFormat, major, m)
	}
	return l.WriteMessage(DeviceReady)
}

// Status is the host's answer to a request.
type Status struct {
	Code    int64
	Text    string // may be empty
	Payload any
}

// WriteStatus answers a request. It sends a nil payload as an empty dictionary.
func (l *Conn) WriteStatus(code int64, text string, payload any) error {
	if text == "" {
		text = NoText
	}
	if payload == nil {
		payload = map[string]any{}
	}
	return l.WriteMessage(StatusResponse, code, text, payload)
}

// ReadStatus waits for the answer to a request.
func (l *Conn) ReadStatus() (Status, error) {
	m, err := l.ReadMessage()
	if err != nil {
		return Status{}, cut(err)
	}
	code, ok := m.Int(1)
	text, isText := m.Text(2)
	if m.Name() != StatusResponse || !ok || !isText || len(m) != 4 {
		return Status{}, fmt.Errorf("%w: an answer %q of %d elements", ErrFormat, m.Name(), len(m))
	}
	if text == NoText {
		text = ""
	}
	return Status{code, text, m[3]}, nil
}
