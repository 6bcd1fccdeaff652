package simulator

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"net"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/message"
)

// A message of usbmuxd is a header of four little-endian 32-bit numbers (total
// length, version, type, tag) and an XML property list.
const (
	muxHeader   = 16
	muxVersion  = 1
	muxPlist    = 8
	maxMuxFrame = 1 << 20
)

// Numbers of Result messages.
const (
	resultOK         = 0
	resultBadCommand = 1
	resultBadDevice  = 2
	resultRefused    = 3
	resultBadVersion = 6
)

// Limits for a client that does not read.
const (
	patience          = 30 * time.Second // to send one message
	maxQueuedMessages = 256
)

type muxFrame struct {
	version, kind, tag uint32
	body               []byte
}

// readMuxFrame reads exactly one message and no byte more, since the bytes after
// Connect are for the device.
func readMuxFrame(r io.Reader) (muxFrame, error) {
	var h [muxHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return muxFrame{}, err
	}
	n := binary.LittleEndian.Uint32(h[0:])
	f := muxFrame{binary.LittleEndian.Uint32(h[4:]), binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[12:]), nil}
	if n < muxHeader || n > maxMuxFrame {
		return f, fmt.Errorf("message of %d bytes, want %d to %d", n, muxHeader, maxMuxFrame)
	}
	var err error
	f.body, err = message.ReadBody(r, int(n-muxHeader))
	return f, err
}

func appendMuxFrame(dst []byte, tag uint32, v map[string]any) ([]byte, error) {
	body, err := plist.EncodeXML(v)
	if err != nil {
		return nil, err
	}
	for _, n := range []uint32{uint32(muxHeader + len(body)), muxVersion, muxPlist, tag} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return append(dst, body...), nil
}

func result(n int) map[string]any { return map[string]any{"MessageType": "Result", "Number": n} }

// client is the connection of a program to usbmuxd.
type client struct {
	sim  *Simulator
	conn net.Conn
}

func (c *client) send(tag uint32, v map[string]any) error {
	b, err := appendMuxFrame(nil, tag, v)
	if err != nil {
		return err
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err = c.conn.Write(b)
	_ = c.conn.SetWriteDeadline(time.Time{})
	return err
}

// serveClient serves a connection until it ends.
func (s *Simulator) serveClient(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := &client{s, conn}
	for {
		f, err := readMuxFrame(conn)
		if err != nil {
			return
		}
		if f.version != muxVersion || f.kind != muxPlist {
			if c.send(f.tag, result(resultBadVersion)) != nil {
				return
			}
			continue
		}
		request, err := plist.Dict(f.body)
		if err != nil {
			request = nil // handled like an unknown command
		}
		switch request["MessageType"] {
		case "Listen":
			c.watch(f.tag)
			return
		case "Connect":
			link, p, code := s.target(request)
			if c.send(f.tag, result(code)) != nil {
				return
			}
			if code == resultOK {
				link.serve(ctx, conn, p)
				return
			}
		default:
			if c.send(f.tag, s.answer(request)) != nil {
				return
			}
		}
	}
}

// answer returns the reply to a request other than Listen and Connect.
func (s *Simulator) answer(request map[string]any) map[string]any {
	udid, _ := request["PairRecordID"].(string)
	switch request["MessageType"] {
	case "ListDevices":
		list := []any{}
		for _, l := range s.attachedLinks() {
			list = append(list, l.attachedMessage())
		}
		return map[string]any{"DeviceList": list}
	case "ReadBUID":
		return map[string]any{"BUID": s.buid}
	case "ReadPairRecord":
		record, ok := s.PairRecord(udid)
		if !ok {
			return result(resultBadDevice)
		}
		return map[string]any{"PairRecordData": record}
	case "SavePairRecord":
		record, ok := request["PairRecordData"].([]byte)
		if !ok || udid == "" || s.SetPairRecord(udid, record) != nil {
			return result(resultBadCommand)
		}
		s.tellPaired(udid)
		return result(resultOK)
	case "DeletePairRecord":
		if _, ok := s.PairRecord(udid); !ok {
			return result(resultBadDevice)
		}
		_ = s.SetPairRecord(udid, nil) // removing cannot fail
		return result(resultOK)
	}
	return result(resultBadCommand)
}

// target returns the link and the port to which a Connect request leads.
func (s *Simulator) target(request map[string]any) (*Link, port, int) {
	id, _ := request["DeviceID"].(int64)
	swapped, ok := request["PortNumber"].(int64)
	if !ok || swapped < 0 || swapped > 0xffff {
		return nil, port{}, resultBadCommand
	}
	l := s.link(int(max(0, min(id, 1<<31-1))))
	if l == nil {
		return nil, port{}, resultBadDevice
	}
	// The port is in network byte order.
	p, ok := l.dev.connectTo(bits.ReverseBytes16(uint16(swapped)))
	if !ok {
		return nil, port{}, resultRefused
	}
	return l, p, resultOK
}

// attachedMessage returns the message that tells clients of a link.
func (l *Link) attachedMessage() map[string]any {
	properties := map[string]any{
		"ConnectionType": string(l.Transport),
		"DeviceID":       l.ID,
		"SerialNumber":   l.dev.UDID(),
	}
	switch l.Transport {
	case USB:
		properties["ConnectionSpeed"] = 480000000
		properties["LocationID"] = l.ID << 16
		properties["ProductID"] = 0x12a8
	case Network:
		properties["EscapedFullServiceName"] = l.dev.spec.WiFiAddress + "._apple-mobdev2._tcp.local."
		properties["InterfaceIndex"] = 1
		properties["NetworkAddress"] = l.sockaddr()
	}
	return map[string]any{"MessageType": "Attached", "DeviceID": l.ID, "Properties": properties}
}

// watcher is a client that listens for devices to come and go.
type watcher struct{ queue chan map[string]any }

// tell sends an event to all watchers. If a watcher does not keep up, tell closes its
// queue. s.mu must be held, which keeps events in order.
func (s *Simulator) tell(event map[string]any) {
	for w := range s.watchers {
		select {
		case w.queue <- event:
		default:
			delete(s.watchers, w)
			close(w.queue)
		}
	}
}

func (s *Simulator) tellPaired(udid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sortedLinks() {
		if recordKey(l.dev.UDID()) == recordKey(udid) {
			s.tell(map[string]any{"MessageType": "Paired", "DeviceID": l.ID})
		}
	}
}

// watch sends events until the client disconnects.
func (c *client) watch(tag uint32) {
	if c.send(tag, result(resultOK)) != nil {
		return
	}
	s := c.sim
	w := &watcher{queue: make(chan map[string]any, maxQueuedMessages)}
	s.mu.Lock()
	present := s.sortedLinks()
	s.watchers[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
	}()
	disconnected := make(chan struct{})
	go func() {
		defer close(disconnected)
		_, _ = io.Copy(io.Discard, c.conn) // returns when the connection ends
	}()
	defer func() {
		c.conn.Close()
		<-disconnected
	}()
	for _, l := range present {
		if c.send(0, l.attachedMessage()) != nil {
			return
		}
	}
	for {
		select {
		case event, ok := <-w.queue:
			if !ok || c.send(0, event) != nil {
				return
			}
		case <-disconnected:
			return
		}
	}
}
