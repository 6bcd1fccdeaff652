package simulator

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/pairing"
)

// values returns all values that a device shows in a session.
func values(e ios.DeviceEntry) (map[string]any, error) { return ios.GetValuesPlist(e) }

func TestListAndListen(t *testing.T) {
	r := newRig(t)
	a := NewDevice(Spec{UDID: "00008030-000000000000A11A", Name: "A"})
	b := NewDevice(Spec{UDID: "00008030-000000000000B11B", Name: "B"})
	r.Attach(a, USB)
	r.Attach(a, Network)
	list, err := ios.ListDevices()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list.DeviceList); n != 2 {
		t.Fatalf("%d devices: %v", n, list)
	}
	for i, want := range []string{"USB", "Network"} {
		if e := list.DeviceList[i]; e.Properties.SerialNumber != a.UDID() || e.Properties.ConnectionType != want || e.DeviceID != i+1 {
			t.Errorf("device %d is %+v", i, e)
		}
	}
	next, stop, err := ios.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	expect := func(what string, id int) {
		t.Helper()
		msg, err := next()
		if err != nil || msg.MessageType != what || msg.DeviceID != id {
			t.Errorf("got %+v %v, want %s of %d", msg, err, what, id)
		}
	}
	expect("Attached", 1)
	expect("Attached", 2)
	link := r.Attach(b, USB)
	expect("Attached", 3)
	link.Detach()
	expect("Detached", 3)
	r.Detach(a)
	expect("Detached", 1)
	expect("Detached", 2)
}

func TestSessionAndValues(t *testing.T) {
	for name, spec := range map[string]Spec{
		"TLS 1.3": {Name: "größer 📱"},
		"TLS 1.2": {Name: "older", MaxTLS: tls.VersionTLS12},
		"plain":   {Name: "plain", PlainText: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.device(spec)
			e := r.entry(d.UDID())
			values, err := ios.GetValuesPlist(e)
			if err != nil {
				t.Fatal(err)
			}
			if values["DeviceName"] != spec.Name || values["UniqueDeviceID"] != d.UDID() {
				t.Errorf("values %v", values)
			}
			session, err := ios.ConnectLockdownWithSession(e)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			if v, err := session.GetValueForDomain("WillEncrypt", DomainBackup); v != false || err != nil {
				t.Errorf("WillEncrypt is %v %v", v, err)
			}
			if v, err := session.GetValueForDomain("Nothing", DomainBackup); v != nil || err != nil {
				t.Errorf("an unknown value is %v %v", v, err)
			}
			if err := session.SetValueForDomain("EnableWifiConnections", DomainWireless, false); err != nil {
				t.Error(err)
			}
			if v := d.Value(DomainWireless, "EnableWifiConnections"); v != false {
				t.Errorf("what was set is %v", v)
			}
			r.noViolations(d)
		})
	}
}

// The handler of an added service gets the bytes that the host sends inside TLS.
func TestHandle(t *testing.T) {
	for _, plain := range []bool{false, true} {
		r := newRig(t)
		d := r.device(Spec{PlainText: plain})
		d.Handle("org.example.echo", func(_ context.Context, conn net.Conn) { _, _ = io.Copy(conn, conn) })
		c, err := ios.ConnectToService(r.entry(d.UDID()), "org.example.echo")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("%q %v", got, err)
		}
		c.Close()
		r.await(d, "org.example.echo", "close")
		r.noViolations(d)
		if _, err := ios.ConnectToService(r.entry(d.UDID()), "org.example.none"); err == nil || !strings.Contains(err.Error(), "InvalidService") {
			t.Errorf("unknown service: %v", err)
		}
		d.Refuse("org.example.echo", "ServiceProhibited")
		if _, err := ios.ConnectToService(r.entry(d.UDID()), "org.example.echo"); err == nil || !strings.Contains(err.Error(), "ServiceProhibited") {
			t.Errorf("refused service: %v", err)
		}
	}
}

func TestPair(t *testing.T) {
	r := newRig(t)
	d := NewDevice(Spec{})
	r.Attach(d, USB)
	e := r.entry(d.UDID())
	if _, err := ios.ReadPairRecord(d.UDID()); err == nil {
		t.Error("an unpaired device has a pair record")
	}
	if err := ios.Pair(e); err == nil || !strings.Contains(err.Error(), "accept the PairingDialog") {
		t.Errorf("before the owner has answered: %v", err)
	}
	d.AnswerTrust(true)
	if err := ios.Pair(e); err != nil {
		t.Fatal(err)
	}
	if _, err := ios.GetValuesPlist(e); err != nil {
		t.Errorf("after pairing: %v", err)
	}
	record, err := ios.ReadPairRecord(d.UDID())
	if err != nil || len(record.EscrowBag) != 32 {
		t.Errorf("record %+v %v", record, err)
	}
	d.ForgetHosts()
	if _, err := ios.GetValuesPlist(e); err == nil {
		t.Error("a stale pairing was accepted")
	}
	r.noViolations(d)
}

// A device gives the right answer to a host that wants to pair, in each state.
func TestMayPair(t *testing.T) {
	key := testKey(t)
	d := NewDevice(Spec{Key: key})
	certs, err := pairing.Certify(&key.PublicKey, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sim := New()
	link := sim.Attach(d, USB)
	asked := 0
	ask := func(host string, over Transport, want string) {
		t.Helper()
		asked++
		reply := d.hosts.Pair(map[string]any{"PairRecord": map[string]any{
			"HostID": host, "SystemBUID": "b", "DeviceCertificate": pairing.CertificatePEM(certs.Device),
			"HostCertificate": pairing.CertificatePEM(certs.Host), "RootCertificate": pairing.CertificatePEM(certs.Root),
		}}, over == Network, d.Lock() == Unlocked)
		got, _ := reply["Error"].(string)
		bag, _ := reply["EscrowBag"].([]byte)
		if got != want || (len(bag) == 32) != (want == "") {
			t.Errorf("request %d: got %q and a bag of %d bytes, want %q", asked, got, len(bag), want)
		}
	}
	ask("a", Network, "PairingProhibitedOverThisConnection")
	d.SetLock(Locked)
	ask("a", USB, "PasswordProtected")
	d.SetLock(Unlocked)
	d.SetManaged(true)
	ask("a", USB, "MCProtected")
	d.SetManaged(false)
	ask("a", USB, "PairingDialogResponsePending")
	ask("a", USB, "PairingDialogResponsePending")
	d.AnswerTrust(false)
	ask("a", USB, "UserDeniedPairing")
	ask("a", USB, "UserDeniedPairing")
	ask("x", USB, "PairingDialogResponsePending") // the refusal was for another host
	d.AnswerTrust(false)
	ask("x", USB, "UserDeniedPairing")
	d.AnswerTrust(false) // before the host "y" asks
	ask("y", USB, "UserDeniedPairing")
	ask("z", USB, "PairingDialogResponsePending")
	link.Detach()
	sim.Attach(d, USB)
	ask("a", USB, "PairingDialogResponsePending")
	if !d.TrustDialog() {
		t.Error("no dialog")
	}
	d.AnswerTrust(true)
	ask("a", USB, "")
	ask("a", USB, "")
	ask("b", USB, "PairingDialogResponsePending")
	d.SetManaged(true)
	ask("a", USB, "")
	ask("b", USB, "MCProtected")
	d.SetManaged(false)
	d.SetTrust(TrustNever)
	ask("b", USB, "UserDeniedPairing")
	d.SetTrust(TrustAlways)
	ask("b", USB, "")
	if v := d.Violations(); len(v) != 0 {
		t.Errorf("violations %q", v)
	}
	certs.Device = certs.Host[:len(certs.Host)-1]
	ask("c", USB, "InvalidPairRecord")
	if v := d.Violations(); len(v) != 1 {
		t.Errorf("violations %q", v)
	}
	for _, request := range []func(map[string]any) map[string]any{d.hosts.Validate, d.hosts.Unpair} {
		if got := request(map[string]any{"PairRecord": map[string]any{"HostID": "nobody"}}); got["Error"] != "InvalidHostID" {
			t.Errorf("unknown host: %v", got)
		}
		if got := request(map[string]any{"PairRecord": map[string]any{"HostID": "a"}}); len(got) != 0 {
			t.Errorf("known host: %v", got)
		}
	}
}

// startBackup starts the backup service and returns lockdownd's error. It sends bag as
// the EscrowBag if bag is not nil.
func startBackup(t *testing.T, e ios.DeviceEntry, bag []byte) string {
	t.Helper()
	session, err := ios.ConnectLockdownWithSession(e)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	request := map[string]any{"Label": "test", "Request": "StartService", "Service": MobileBackup2}
	if bag != nil {
		request["EscrowBag"] = bag
	}
	if err := session.Send(request); err != nil {
		t.Fatal(err)
	}
	b, err := session.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	reply, err := plist.Dict(b)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := reply["Error"].(string)
	if (name == "") != (reply["Port"] != nil) {
		t.Errorf("reply %v", reply)
	}
	return name
}

func TestEscrowBag(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	d.Handle(MobileBackup2, func(context.Context, net.Conn) {})
	e := r.entry(d.UDID())
	record, err := ios.ReadPairRecord(d.UDID())
	if err != nil {
		t.Fatal(err)
	}
	bag := record.EscrowBag
	for _, test := range []struct {
		lock       Lock
		bag        []byte
		want       string
		violations int
	}{
		{Unlocked, bag, "", 0},
		{Locked, bag, "", 0},
		{NotYetUnlocked, bag, "EscrowLocked", 0},
		{Unlocked, nil, "", 1},
		{Locked, nil, "PasswordProtected", 2},
		{NotYetUnlocked, nil, "PasswordProtected", 3},
		{Locked, make([]byte, 32), "PasswordProtected", 4},
	} {
		d.SetLock(test.lock)
		if got := startBackup(t, e, test.bag); got != test.want {
			t.Errorf("%v: got %q, want %q", test.lock, got, test.want)
		}
		if got := d.Violations(); len(got) != test.violations {
			t.Errorf("%v: violations %q", test.lock, got)
		}
	}
}
