package device

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
	"github.com/snap-backup/snap/device/simulator"
)

func echo(_ context.Context, c net.Conn) { _, _ = io.Copy(c, c) }

// speak sends a word to an echo service.
func speak(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	b := make([]byte, 4)
	err := stream.Do(t.Context(), c, time.Minute, func() error {
		if _, err := c.Write([]byte("snap")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	})
	if err != nil || string(b) != "snap" {
		t.Errorf("%q %v", b, err)
	}
}

func TestSessionAndService(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]simulator.Spec{
		"now": {}, "iOS 9": {MaxTLS: tls.VersionTLS10, ProductVersion: "9.3.5"}, "plain": {PlainText: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.device(spec)
			d.Handle("echo", echo)
			s, err := r.Session(t.Context(), r.entry())
			if err != nil {
				t.Fatal(err)
			}
			if v, err := s.Value(t.Context(), "", "DeviceName"); err != nil || v != "Simulated iPhone" {
				t.Errorf("%v %v", v, err)
			}
			if _, err := s.Value(t.Context(), "", "Nonsense"); !errors.Is(err, ErrMissing) {
				t.Error(err)
			}
			if v, err := s.Values(t.Context(), BackupDomain); err != nil || !v.Has("WillEncrypt") {
				t.Errorf("%v %v", v, err)
			}
			if err := s.SetValue(t.Context(), wirelessDomain, "EnableWifiConnections", false); err != nil || d.Value(wirelessDomain, "EnableWifiConnections") != false {
				t.Error(err)
			}
			c, err := s.StartService(t.Context(), "echo", true)
			if err != nil {
				t.Fatal(err)
			}
			if _, secured := c.(*tls.Conn); secured == spec.PlainText {
				t.Errorf("TLS: %v", secured)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			speak(t, c) // a service outlives the session that started it
			devicetest.NoViolations(t, d)
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.Handle("echo", echo)
	for code, want := range map[string]error{
		"PasswordProtected": ErrLocked, "EscrowLocked": ErrLocked, "InvalidHostID": ErrStalePairing, "ServiceProhibited": ErrManaged,
		"MCProtected": ErrManaged, "ServiceLimit": ErrBusy, "InvalidService": ErrNoService,
	} {
		d.Refuse("echo", code)
		_, err := r.Service(t.Context(), r.entry(), "echo", false)
		var refused *Refusal
		if !errors.Is(err, want) || !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	d.Refuse("echo", "SomethingNew")
	if _, err := r.Service(t.Context(), r.entry(), "echo", false); err == nil {
		t.Error("an unknown refusal was not an error")
	}
	devicetest.NoViolations(t, d)
}

func TestLockedDevices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.Handle(simulator.MobileBackup2, echo)
	d.SetLock(simulator.Locked)
	if _, err := r.Service(t.Context(), r.entry(), simulator.MobileBackup2, false); !errors.Is(err, ErrLocked) {
		t.Errorf("without escrow bag: %v", err)
	}
	c, err := r.Service(t.Context(), r.entry(), simulator.MobileBackup2, true)
	if err != nil {
		t.Fatal(err)
	}
	speak(t, c)
	d.SetLock(simulator.NotYetUnlocked)
	if _, err := r.Service(t.Context(), r.entry(), simulator.MobileBackup2, true); !errors.Is(err, ErrLocked) {
		t.Errorf("after a restart: %v", err)
	}
}

func TestSessionFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := simulator.NewDevice(simulator.Spec{})
	at := r.Attach(d, simulator.USB)
	e := r.entry()
	if _, err := r.Session(t.Context(), e); !errors.Is(err, ErrNotPaired) {
		t.Error(err)
	}
	if err := r.Trust(d); err != nil {
		t.Fatal(err)
	}
	good, _ := r.PairRecord(d.UDID())
	for name, record := range map[string][]byte{"garbage": []byte("x"), "empty": encode(t, map[string]any{}), "no keys": encode(t, map[string]any{"HostID": hostID(t, good)})} {
		if err := r.SetPairRecord(d.UDID(), record); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Session(t.Context(), e); err == nil || name != "garbage" && !errors.Is(err, ErrStalePairing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.SetPairRecord(d.UDID(), good); err != nil {
		t.Fatal(err)
	}
	d.ForgetHosts()
	if _, err := r.Session(t.Context(), e); !errors.Is(err, ErrStalePairing) {
		t.Error(err)
	}
	at.Detach()
	if _, err := r.Session(t.Context(), e); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := plist.EncodeXML(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hostID(t *testing.T, record []byte) string {
	t.Helper()
	d, err := stream.Decode(record)
	if err != nil {
		t.Fatal(err)
	}
	return d.String("HostID")
}

// TestCutLinks cuts or silences the connection at any point of a session. The
// session must return an error in time, and never hang or panic.
func TestCutLinks(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := r.device(simulator.Spec{})
	e := r.entry()
	failures := 0
	for after := int64(0); after < 7000; after += 700 {
		d.Cut(simulator.Lockdown, after)
		s, err := r.Session(t.Context(), e)
		if err == nil {
			_, err = s.Values(t.Context(), "")
			s.Close()
		}
		if err != nil {
			failures++
		}
	}
	if failures < 3 {
		t.Errorf("only %d cuts hit", failures)
	}
	d = simulator.NewDevice(simulator.Spec{UDID: "00008020-000000000000002E"})
	r.Attach(d, simulator.USB)
	d.Inject(simulator.Fault{Service: simulator.Lockdown, After: 100, Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	e, err := r.Find(t.Context(), d.UDID())
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.lockdown(ctx, e)
	if err == nil {
		_, err = s.Values(ctx, "")
		s.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestPair(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := simulator.NewDevice(simulator.Spec{})
	r.Attach(d, simulator.USB)
	d.SetLock(simulator.Locked)
	e := r.entry()
	var states []Trust
	opt := PairOptions{Now: time.Now(), Random: rand.Reader, KeyBits: 1024, Poll: 5 * time.Millisecond, On: func(s Trust) {
		states = append(states, s)
		switch s {
		case Locked:
			d.SetLock(simulator.Unlocked)
		case DialogPending:
			d.AnswerTrust(true)
		}
	}}
	if err := r.Pair(t.Context(), e, opt); err != nil {
		t.Fatal(err)
	}
	if want := []Trust{Locked, DialogPending, Trusted}; !slices.Equal(states, want) {
		t.Errorf("%v, want %v", states, want)
	}
	record, _ := r.PairRecord(d.UDID())
	dict, err := stream.Decode(record)
	if err != nil || len(dict.Data("EscrowBag")) != 32 || dict.String("WiFiMACAddress") == "" || dict.String("SystemBUID") == "" {
		t.Errorf("%v", err)
	}

	// Pairing again changes nothing.
	states = nil
	if err := r.Pair(t.Context(), e, opt); err != nil || !slices.Equal(states, []Trust{Trusted}) {
		t.Errorf("%v %v", states, err)
	}
	// If a paired device is locked, Pair waits and keeps the pairing record.
	d.SetLock(simulator.NotYetUnlocked)
	if err := r.Pair(t.Context(), e, opt); err != nil {
		t.Error(err)
	}
	d.SetLock(simulator.Unlocked)
	if after, _ := r.PairRecord(d.UDID()); string(after) != string(record) {
		t.Error("the pairing record was replaced")
	}
	// Pairing replaces a stale pairing.
	d.ForgetHosts()
	if err := r.Pair(t.Context(), e, opt); err != nil {
		t.Error(err)
	}
	if after, _ := r.PairRecord(d.UDID()); string(after) == string(record) {
		t.Error("the stale pairing record was kept")
	}
	if err := r.EnableWiFi(t.Context(), e); err != nil || d.Value(wirelessDomain, "EnableWifiConnections") != true {
		t.Error(err)
	}

	if err := r.Unpair(t.Context(), e); err != nil {
		t.Error(err)
	}
	if _, ok := r.PairRecord(d.UDID()); ok {
		t.Error("the record was not deleted")
	}
	if err := r.Unpair(t.Context(), e); !errors.Is(err, ErrNotPaired) {
		t.Error(err)
	}
	devicetest.NoViolations(t, d)
}

func TestUnpairStale(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.ForgetHosts()
	if err := r.Unpair(t.Context(), r.entry()); err != nil {
		t.Error(err)
	}
	if _, ok := r.PairRecord(d.UDID()); ok {
		t.Error("the record was not deleted")
	}
}

func TestPairRefused(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	for name, tt := range map[string]struct {
		spec  simulator.Spec
		by    simulator.Transport
		want  error
		trust Trust
	}{
		"denied":  {simulator.Spec{Trust: simulator.TrustNever}, simulator.USB, ErrDenied, Denied},
		"managed": {simulator.Spec{Managed: true}, simulator.USB, ErrManaged, Managed},
		"air":     {simulator.Spec{}, simulator.Network, ErrNeedsCable, NeedsCable},
		"ignored": {simulator.Spec{}, simulator.USB, ErrDialogPending, DialogPending},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.Attach(simulator.NewDevice(tt.spec), tt.by)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			opt := PairOptions{Now: time.Now(), Random: rand.Reader, KeyBits: 1024, Poll: time.Millisecond, On: func(s Trust) {
				if name == "ignored" {
					cancel()
				}
			}}
			err := r.Pair(ctx, r.entry(), opt)
			if !errors.Is(err, tt.want) || trustOf(err) != tt.trust || tt.trust.Words() == Unknown.Words() {
				t.Errorf("%v", err)
			}
			if _, kept := r.PairRecord(r.entry().UDID); kept {
				t.Error("a record was kept")
			}
		})
	}
}

func TestDeviceKeys(t *testing.T) {
	t.Parallel()
	for _, b := range [][]byte{nil, []byte("x"), []byte("-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n")} {
		if _, err := newRecord(b, PairOptions{Now: time.Now(), Random: rand.Reader}); !errors.Is(err, errDeviceKey) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

func FuzzLockdown(f *testing.F) {
	for _, v := range []any{
		map[string]any{"Request": "StartSession", "SessionID": "X", "EnableSessionSSL": true},
		map[string]any{"Request": "GetValue", "Value": map[string]any{"DeviceName": "x", "WillEncrypt": 1, "TotalDataCapacity": 5,
			"TotalDataAvailable": 3, "BatteryCurrentCapacity": 80, "LastiTunesBackupDate": 7e8, "IsAssociated": true}},
		map[string]any{"Error": "InvalidHostID"}, map[string]any{"Error": 5},
	} {
		f.Add(encode(f, v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := stream.Decode(b)
		if err != nil {
			return
		}
		if reply, err := checkReply(d, "GetValue"); err == nil {
			var i Info
			for _, v := range []stream.Dict{reply, reply.Dict("Value")} {
				i.general(v)
				i.backup(v)
				i.battery(v)
				i.disk(v)
				i.findMy(v)
			}
			if len(i.Name) > 2*maxText {
				t.Fatal("a name is too long")
			}
		}
	})
}
