package simulator

import (
	"bufio"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/simulator/message"
)

// After StopSession the connection is not encrypted, and another session can begin.
// The host may or may not send close_notify.
func TestSessionEnds(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	record, err := ios.ReadPairRecord(d.UDID())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(record.HostCertificate, record.HostPrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	host, dev := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.serveLockdown(r.ctx, dev)
	}()
	ask := func(c net.Conn, request map[string]any) map[string]any {
		t.Helper()
		if err := message.Write(c, request); err != nil {
			t.Fatal(err)
		}
		reply, err := message.Read(c)
		if err != nil || reply["Error"] != nil {
			t.Fatalf("%v: %v, %v", request, reply, err)
		}
		return reply
	}
	for _, polite := range []bool{true, false, true} {
		reply := ask(host, map[string]any{"Request": "StartSession", "HostID": record.HostID, "SystemBUID": record.SystemBUID})
		// The host, too, must not read beyond the last TLS record.
		records := &recordConn{Conn: host, in: bufio.NewReader(host), bounded: true}
		secure := tls.Client(records, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true})
		ask(secure, map[string]any{"Request": "GetValue", "Key": "SerialNumber"})
		ask(secure, map[string]any{"Request": "StopSession", "SessionID": reply["SessionID"]})
		// The device sends close_notify, so this read fails.
		if _, err := secure.Read(make([]byte, 1)); err == nil {
			t.Fatal("the device's TLS continues")
		}
		if polite {
			_ = secure.CloseWrite()
			_ = host.SetDeadline(time.Time{})
		}
		if got := ask(host, map[string]any{"Request": "GetValue", "Key": "DeviceName"})["Value"]; got != d.Name() {
			t.Errorf("unencrypted: %v", got)
		}
	}
	host.Close()
	<-done
	r.noViolations(d)
}
