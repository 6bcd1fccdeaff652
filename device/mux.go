package device

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// ErrNoMux says that usbmuxd does not answer.
var ErrNoMux = errors.New("usbmuxd, which connects devices, does not answer")

// Mux is the address of a usbmuxd. It holds no connection.
type Mux struct {
	address string
	dialer  func(context.Context) (net.Conn, error)
}

// Open returns a Mux for an address in one of the forms of AddressVariable; "" is
// the default of the system. It does not connect.
func Open(address string) (*Mux, error) {
	network, addr, err := parseAddress(address, runtime.GOOS)
	if err != nil {
		return nil, err
	}
	return OpenFunc(addr, func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, network, addr)
	}), nil
}

// OpenFunc returns a Mux that connects by calling dial, for example to a simulated
// usbmuxd in this process. The address is only for messages.
func OpenFunc(address string, dial func(context.Context) (net.Conn, error)) *Mux {
	return &Mux{address, dial}
}

// muxConn is a connection to usbmuxd.
type muxConn struct{ *stream.Mux }

// dialTimeout is how long usbmuxd may take to accept a connection.
const dialTimeout = 10 * time.Second

func (m *Mux) dial(ctx context.Context) (*muxConn, error) {
	c, err := m.dialer(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrNoMux, m.address, err)
	}
	return &muxConn{stream.NewMux(c)}, nil
}

// ask sends a request and returns the answer. The error is a muxResult if
// usbmuxd refuses.
func (c *muxConn) ask(ctx context.Context, kind string, fields map[string]any) (stream.Dict, error) {
	msg := map[string]any{
		"MessageType": kind, "ProgName": "snap", "ClientVersionString": "snap",
		"BundleID": "com.github.snap-backup.snap", "kLibUSBMuxVersion": 3,
	}
	for k, v := range fields {
		msg[k] = v
	}
	var d stream.Dict
	err := c.Send(ctx, msg)
	if err == nil {
		d, err = c.Receive(ctx, stream.Timeout)
	}
	if err == nil {
		err = resultOf(d)
	}
	if err != nil {
		return nil, fmt.Errorf("ask usbmuxd for %s: %w", kind, err)
	}
	return d, nil
}

// muxResult is the result code with which usbmuxd refuses a request.
type muxResult int64

const (
	muxBadDevice muxResult = 2
	muxRefused   muxResult = 3
)

func (r muxResult) Error() string {
	switch r {
	case muxBadDevice:
		return "the device is no longer connected"
	case muxRefused:
		return "the device refused the connection"
	}
	return fmt.Sprintf("usbmuxd refused with result %d", int64(r))
}

func (r muxResult) Is(target error) bool { return r == muxBadDevice && target == ErrGone }

func resultOf(d stream.Dict) error {
	if !d.Has("Number") && d.String("MessageType") != "Result" {
		return nil
	}
	n, ok := d.Int("Number")
	if !ok {
		return fmt.Errorf("%w: a result without a number", plist.ErrFormat)
	}
	if n != 0 {
		return muxResult(n)
	}
	return nil
}

// ask makes one request on a new connection.
func (m *Mux) ask(ctx context.Context, kind string, fields map[string]any) (stream.Dict, error) {
	c, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ask(ctx, kind, fields)
}

// connect connects to a port of a device.
func (m *Mux) connect(ctx context.Context, l Link, port uint16) (net.Conn, error) {
	c, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	// usbmuxd expects a number whose bytes are in network order.
	if _, err = c.ask(ctx, "Connect", map[string]any{"DeviceID": l.ID, "PortNumber": int(port<<8 | port>>8)}); err != nil {
		c.Close()
		return nil, err
	}
	if err := c.Raw().SetDeadline(time.Time{}); err != nil {
		c.Close()
		return nil, err
	}
	return c.Raw(), nil
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

// Entry is a connected device. Links has at least one link, with USB before
// network.
type Entry struct {
	UDID  string // with a dash if it has 24 digits
	Links []Link

	serial string // the UDID as usbmuxd writes it
}

// Link returns the link to use: USB if there is one.
func (e Entry) Link() Link { return e.Links[0] }

// maxDevices bounds the list of devices.
const maxDevices = 4096

// List returns the connected devices, one entry each, in usbmuxd's order.
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
			continue // an invalid entry must not hide the others
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

// parseEntry parses an Attached message or an item of the list.
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

// isUDID reports whether s can be a UDID: letters, digits and dashes. It is
// strict, since a UDID becomes the name of a folder.
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

// dashed adds the dash to a UDID of 24 digits. Some versions of usbmuxd omit the
// dash.
func dashed(udid string) string {
	if len(udid) == 24 && !strings.Contains(udid, "-") {
		return udid[:8] + "-" + udid[8:]
	}
	return udid
}
