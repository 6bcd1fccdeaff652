package simulator

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/message"
	"github.com/snap-backup/snap/device/simulator/pairing"
)

// tape is a connection to a host. The host sends some bytes, reads everything, and
// then disconnects.
type tape struct {
	io.Reader
	io.Writer
}

func (tape) Close() error                     { return nil }
func (tape) LocalAddr() net.Addr              { return nil }
func (tape) RemoteAddr() net.Addr             { return nil }
func (tape) SetDeadline(time.Time) error      { return nil }
func (tape) SetReadDeadline(time.Time) error  { return nil }
func (tape) SetWriteDeadline(time.Time) error { return nil }

// feed sends bytes to a service.
func feed(t *testing.T, data []byte, serve func(context.Context, net.Conn)) {
	t.Helper()
	serve(t.Context(), tape{bytes.NewReader(data), io.Discard})
}

func framed(t testing.TB, messages ...map[string]any) []byte {
	var b bytes.Buffer
	for _, m := range messages {
		if err := message.Write(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func FuzzMux(f *testing.F) {
	seed := func(messages ...map[string]any) {
		var b []byte
		for i, m := range messages {
			b, _ = appendMuxFrame(b, uint32(i), m)
		}
		f.Add(b)
	}
	seed(map[string]any{"MessageType": "ListDevices"}, map[string]any{"MessageType": "ReadBUID"})
	seed(map[string]any{"MessageType": "Listen"})
	seed(map[string]any{"MessageType": "Connect", "DeviceID": 1, "PortNumber": 32498}, map[string]any{"MessageType": "x"})
	seed(map[string]any{"MessageType": "SavePairRecord", "PairRecordID": "x", "PairRecordData": []byte("y"), "DeviceID": 1},
		map[string]any{"MessageType": "ReadPairRecord", "PairRecordID": "x"}, map[string]any{"MessageType": "DeletePairRecord", "PairRecordID": "x"})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New()
		s.Attach(NewDevice(Spec{}), USB)
		feed(t, data, s.serveClient)
	})
}

func FuzzLockdown(f *testing.F) {
	key, err := pairing.Key()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(framed(f, map[string]any{"Request": "QueryType"}, map[string]any{"Request": "GetValue", "Key": "DeviceName"}))
	f.Add(framed(f, map[string]any{"Request": "GetValue"}, map[string]any{"Request": "StopSession", "SessionID": "x"}))
	f.Add(framed(f, map[string]any{"Request": "Pair", "PairRecord": map[string]any{"HostID": "x", "DeviceCertificate": []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")}}))
	f.Add(framed(f, map[string]any{"Request": "Unpair", "PairRecord": map[string]any{"HostID": "x"}}, map[string]any{"Request": "ValidatePair"}))
	// The device trusts the host "x", so that sessions can begin.
	f.Add(framed(f, map[string]any{"Request": "StartSession", "HostID": "x", "SystemBUID": "y"},
		map[string]any{"Request": "SetValue", "Key": "DeviceName", "Value": "z"},
		map[string]any{"Request": "StartService", "Service": AFC}))
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff, '<'})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := NewDevice(Spec{PlainText: true, Key: key, Trust: TrustAlways})
		if err := d.hosts.Add(pairing.Host{ID: "x", BUID: "y"}); err != nil {
			t.Fatal(err)
		}
		feed(t, data, d.serveLockdown)
		if _, err := plist.EncodeXML(d.Values("")); err != nil {
			t.Errorf("values that cannot be sent: %v", err)
		}
	})
}

func FuzzServices(f *testing.F) {
	f.Add(framed(f, map[string]any{"Command": "ObserveNotification", "Name": "x"}, map[string]any{"Command": "PostNotification", "Name": "x"},
		map[string]any{"Command": "Shutdown"}))
	f.Add(framed(f, map[string]any{"Command": "Browse", "ClientOptions": map[string]any{"ReturnAttributes": []any{"x"}}},
		map[string]any{"Command": "Lookup", "ClientOptions": map[string]any{"BundleIDs": []any{"x"}}}))
	f.Add(framed(f, map[string]any{"command": "getIconPNGData", "bundleId": "x"}))
	f.Add(framed(f, map[string]any{"Request": "MobileGestalt", "MobileGestaltKeys": []any{"PasswordConfigured", 1}}))
	f.Add(framed(f, map[string]any{"Command": "Polo"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := NewDevice(Spec{HeartbeatInterval: time.Millisecond})
		d.SetApps([]App{{ID: "x"}})
		for _, serve := range []Handler{d.serveNotifications, d.serveApps, d.serveSpringBoard, d.serveDiagnostics, d.serveHeartbeat} {
			feed(t, data, serve)
		}
	})
}
