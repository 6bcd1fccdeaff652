package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// ErrNoMux says that no usbmuxd answers.
var ErrNoMux = errors.New("usbmuxd, which connects devices, does not answer")

// Mux is where usbmuxd listens. It holds no connection.
type Mux struct{ network, address string }

// Open says where usbmuxd listens, see AddressVariable for the forms; "" is the
// system's usual place. Nothing is connected yet.
func Open(address string) (*Mux, error) {
	network, addr, err := parseAddress(address, runtime.GOOS)
	if err != nil {
		return nil, err
	}
	// go-ios logs the errors that it returns, to standard error if left alone.
	ios.SetLogger(slog.New(slog.DiscardHandler))
	return &Mux{network, addr}, nil
}

// muxConn is a connection to usbmuxd.
type muxConn struct {
	raw   net.Conn
	codec *ios.UsbMuxConnection
}

// dialTimeout is how long usbmuxd may take to accept a connection.
const dialTimeout = 10 * time.Second

func (m *Mux) dial(ctx context.Context) (*muxConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, m.network, m.address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrNoMux, m.address, err)
	}
	return &muxConn{c, ios.NewUsbMuxConnection(ios.NewDeviceConnectionWithConn(c))}, nil
}

// maxMuxMessage bounds what usbmuxd sends in one message; go-ios bounds it too,
// at 16 MiB.
const maxMuxMessage = 4 << 20

func (c *muxConn) receive(ctx context.Context, timeout time.Duration) (stream.Dict, error) {
	var msg ios.UsbMuxMessage
	err := stream.Do(ctx, c.raw, timeout, func() (err error) {
		msg, err = c.codec.ReadMessage()
		return err
	})
	if err != nil {
		return nil, err
	}
	return decodeMux(msg.Payload)
}

func decodeMux(payload []byte) (stream.Dict, error) {
	if len(payload) > maxMuxMessage {
		return nil, fmt.Errorf("%w: %d bytes from usbmuxd", plist.ErrFormat, len(payload))
	}
	return stream.Decode(payload)
}

// ask sends a request and returns the answer. An answer that is a Result other
// than 0 is a muxResult.
func (c *muxConn) ask(ctx context.Context, kind string, more map[string]any) (stream.Dict, error) {
	msg := map[string]any{
		"MessageType": kind, "ProgName": "snap", "ClientVersionString": "snap",
		"BundleID": "com.github.snap-backup.snap", "kLibUSBMuxVersion": 3,
	}
	for k, v := range more {
		msg[k] = v
	}
	var d stream.Dict
	err := stream.Do(ctx, c.raw, stream.Timeout, func() error { return c.codec.Send(msg) })
	if err == nil {
		d, err = c.receive(ctx, stream.Timeout)
	}
	if err == nil {
		err = resultOf(d)
	}
	if err != nil {
		return nil, fmt.Errorf("ask usbmuxd for %s: %w", kind, err)
	}
	return d, nil
}

// muxResult is the number with which usbmuxd refuses.
type muxResult int64

const (
	muxBadDevice muxResult = 2
	muxRefused   muxResult = 3
)

func (r muxResult) Error() string {
	switch r {
	case muxBadDevice:
		return "the device is not connected any more"
	case muxRefused:
		return "the device refuses the connection"
	}
	return fmt.Sprintf("usbmuxd answers %d", int64(r))
}

func (r muxResult) Is(target error) bool { return r == muxBadDevice && target == ErrGone }

func resultOf(d stream.Dict) error {
	if !d.Has("Number") && d.String("MessageType") != "Result" {
		return nil
	}
	n, ok := d.Int("Number")
	if !ok {
		return fmt.Errorf("%w: a result without number", plist.ErrFormat)
	}
	if n != 0 {
		return muxResult(n)
	}
	return nil
}

// ask makes one request on a connection of its own.
func (m *Mux) ask(ctx context.Context, kind string, more map[string]any) (stream.Dict, error) {
	c, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.raw.Close()
	return c.ask(ctx, kind, more)
}

// connect opens a stream to a port of a device.
func (m *Mux) connect(ctx context.Context, l Link, port uint16) (net.Conn, error) {
	c, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	// usbmuxd wants the port in network byte order, as a number.
	if _, err = c.ask(ctx, "Connect", map[string]any{"DeviceID": l.ID, "PortNumber": int(port<<8 | port>>8)}); err != nil {
		c.raw.Close()
		return nil, err
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		c.raw.Close()
		return nil, err
	}
	return c.raw, nil
}

// Kind is how a device is connected.
type Kind string

// The kinds of links.
const (
	USB     Kind = "usb"
	Network Kind = "network"
)

// Link is one connection of a device. ID is usbmuxd's number for it.
type Link struct {
	Kind Kind
	ID   int64
}

// Entry is a device that is connected. Links has at least one, the best first:
// USB before network.
type Entry struct {
	UDID  string // with dash, where the device's kind has one
	Links []Link

	serial string // as usbmuxd writes the UDID
}

// Link returns the connection to use.
func (e Entry) Link() Link { return e.Links[0] }

// maxDevices bounds the list of devices.
const maxDevices = 4096

// List returns the connected devices, one entry each, in the order in which
// usbmuxd has them.
func (m *Mux) List(ctx context.Context) ([]Entry, error) {
	d, err := m.ask(ctx, "ListDevices", nil)
	if err != nil {
		return nil, err
	}
	return parseList(d)
}

func parseList(d stream.Dict) ([]Entry, error) {
	if !d.Has("DeviceList") {
		return nil, fmt.Errorf("list devices: %w: usbmuxd sent no list", plist.ErrFormat)
	}
	var out []Entry
	at := map[string]int{}
	for i, item := range d.List("DeviceList") {
		if i == maxDevices {
			break
		}
		dict, _ := item.(map[string]any)
		e, ok := parseEntry(dict)
		if !ok {
			continue // one odd entry does not hide the others
		}
		if j, known := at[e.UDID]; known {
			out[j].add(e.Links[0])
		} else {
			at[e.UDID] = len(out)
			out = append(out, e)
		}
	}
	return out, nil
}

func (e *Entry) add(l Link) {
	if l.Kind == USB && e.Links[0].Kind != USB {
		e.Links = append([]Link{l}, e.Links...)
	} else {
		e.Links = append(e.Links, l)
	}
}

// parseEntry reads an Attached message or an item of the list.
func parseEntry(d stream.Dict) (Entry, bool) {
	p := d.Dict("Properties")
	id, ok := d.Int("DeviceID")
	if !ok {
		id, ok = p.Int("DeviceID")
	}
	serial := p.String("SerialNumber")
	if !ok || id <= 0 || !isUDID(serial) {
		return Entry{}, false
	}
	var kind Kind
	switch p.String("ConnectionType") {
	case "USB", "":
		kind = USB
	case "Network":
		kind = Network
	default:
		return Entry{}, false
	}
	return Entry{UDID: dashed(serial), Links: []Link{{kind, id}}, serial: serial}, true
}

// isUDID reports whether s could be a UDID: letters, digits and dashes. UDIDs
// become names of folders.
func isUDID(s string) bool {
	if len(s) < 8 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return s[0] != '-'
}

// dashed puts in the dash that a UDID of 24 digits has everywhere but in some
// versions of usbmuxd.
func dashed(udid string) string {
	if len(udid) == 24 && !strings.Contains(udid, "-") {
		return udid[:8] + "-" + udid[8:]
	}
	return udid
}
