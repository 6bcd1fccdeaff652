// Package devicelink is the framing under Apple's backup protocol, for the host
// and for a (simulated) device alike.
//
//	message   u32be length, property list whose root is an array; its first
//	          element is the message's name
//	file      u32be length, name; then frames of u32be length, one byte of kind,
//	          data; an end frame; a name of length 0 ends the list of files
//
// The package promises that no peer makes it allocate more than a message may
// have, wait longer than the limits given, or panic, and that a file whose
// receiver fails is still read to its end, so that both sides stay in step. It
// knows no message's meaning but for the greeting and the status answer.
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
	// MaxFrame is how many bytes of data one frame of a file has at most when it
	// is sent. Devices kill their backup agent for its memory on much larger
	// ones.
	MaxFrame = 32 << 10
	// MaxName is the longest name of a file, in bytes.
	MaxName = 4096
	// DefaultMaxMessage is the longest message taken, in bytes: a listing of a
	// million names in one folder fits.
	DefaultMaxMessage = 256 << 20
)

// NoText stands for an absent text in answers.
const NoText = "___EmptyParameterString___"

// Names of the messages that this package itself sends or waits for.
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
	StatusMulti   = -13 // the payload has one for each path
	StatusNoSpace = -15
)

// ErrFormat says that the peer sent bytes that are no DeviceLink. The link
// cannot be used any more.
var ErrFormat = errors.New("the peer does not speak DeviceLink")

// Options are the limits of a connection. The zero value of each means none,
// and DefaultMaxMessage.
type Options struct {
	Idle       time.Duration // waiting for the first byte of a message
	Busy       time.Duration // waiting for more inside of a message or file
	Write      time.Duration // waiting until the peer takes what is sent
	MaxMessage int           // bytes
	// MaxFrame is the longest frame of a file's data taken, in bytes. A device
	// has little memory; hosts take any.
	MaxFrame int
	// Device says that this side is the device, whose error frames have a kind
	// of their own.
	Device bool
}

// Conn is one DeviceLink connection. One goroutine may use it at a time; Close
// may be called by any.
type Conn struct {
	c    net.Conn
	o    Options
	r    *bufio.Reader
	w    *bufio.Writer
	idle bool // the next read is the beginning of a message
	buf  []byte
}

// New returns a connection over c, which it owns from now on.
func New(c net.Conn, o Options) *Conn {
	if o.MaxMessage == 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	l := &Conn{c: c, o: o}
	l.r = bufio.NewReaderSize(deadlined{l}, 256<<10)
	l.w = bufio.NewWriterSize(deadlined{l}, 2*MaxFrame)
	return l
}

// deadlined is the connection under the limits that apply.
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

// write hands on bytes, which leave with the end of what they belong to: a
// message, or a list of files.
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

// length reads the four bytes that everything begins with. io.EOF means that
// the peer closed the connection between two messages.
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

// cut turns the end of the stream inside of something into an error.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadMessage waits for the next message. Its error is io.EOF when the peer
// has closed the connection.
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
		return nil, fmt.Errorf("%w: a message that is no array", ErrFormat)
	}
	if _, ok := m[0].(string); !ok {
		return nil, fmt.Errorf("%w: a message without a name", ErrFormat)
	}
	return m, nil
}

// bytes reads n bytes. The memory grows with what really comes, not with what
// was announced.
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

// WriteMessage sends a message: its name and what follows.
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

// WriteEncoded sends a message that is too large to be built in memory: a
// property list of size bytes, which list writes.
func (l *Conn) WriteEncoded(size int64, list func(io.Writer) error) error {
	if size <= 0 || size > math.MaxUint32 {
		return fmt.Errorf("a message of %d bytes", size)
	}
	if err := l.write(binary.BigEndian.AppendUint32(nil, uint32(size))); err != nil {
		return err
	}
	w := &exactly{l: l, left: size}
	if err := list(w); err != nil {
		return err
	}
	if w.left != 0 {
		return fmt.Errorf("a message lacks %d of %d bytes", w.left, size)
	}
	return l.w.Flush()
}

// exactly writes to the peer, and no more than was announced.
type exactly struct {
	l    *Conn
	left int64
}

func (w *exactly) Write(b []byte) (int, error) {
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

// AcceptVersion is the host's part of the greeting: it takes the version that
// the device offers, at least 300 as every device since iOS 4 has, and waits
// until the device is ready.
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
		return 0, fmt.Errorf("%w: %q where the device should be ready", ErrFormat, m.Name())
	}
	return major, nil
}

// OfferVersion is the device's part of the greeting. Some hosts answer with the
// latest version that they know in place of the one offered.
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
		return fmt.Errorf("%w: version %d is answered by %v", ErrFormat, major, m)
	}
	return l.WriteMessage(DeviceReady)
}

// Status is the host's answer to a request.
type Status struct {
	Code    int64
	Text    string // empty if there is none
	Payload any
}

// WriteStatus answers a request. A nil payload is sent as an empty dictionary.
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
