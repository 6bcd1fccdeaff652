package simulator

import (
	"bytes"
	"errors"
	"image/png"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/danielpaulus/go-ios/ios/afc"
	"github.com/danielpaulus/go-ios/ios/installationproxy"
	"github.com/danielpaulus/go-ios/ios/notificationproxy"
)

func TestAFC(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	c, err := afc.New(r.entry(d.UDID()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.MkDir("/a/b"))
	f, err := c.Open("/a/b/größer", afc.READ_WRITE_CREATE)
	check(err)
	_, err = f.Write([]byte("hello "))
	check(err)
	_, err = f.Write([]byte("world"))
	check(err)
	check(f.Close())
	f, err = c.Open("/a/b/größer", afc.READ_ONLY)
	check(err)
	b, err := io.ReadAll(f)
	check(err)
	if string(b) != "hello world" {
		t.Errorf("read %q", b)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("a file that is open for reading was written")
	}
	check(f.Close())
	info, err := c.Stat("/a/b/größer")
	check(err)
	if info.Size != 11 || info.IsDir() {
		t.Errorf("stat %+v", info)
	}
	if info, err := c.Stat("/a"); err != nil || !info.IsDir() {
		t.Errorf("stat of a directory: %+v %v", info, err)
	}
	if names, err := c.List("/a"); err != nil || !slices.Equal(names, []string{"b"}) {
		t.Errorf("list %v %v", names, err)
	}
	if _, err := c.Stat("/none"); err == nil {
		t.Error("a file that is not there has a size")
	}
	if err := c.Remove("/a"); err == nil {
		t.Error("a directory with content was removed")
	}
	check(c.RemoveAll("/a"))
	if _, ok := d.ReadFile("/a/b/größer"); ok {
		t.Error("a removed file is there")
	}
	if !d.WriteFile("/x/../../y/z", []byte("from the device")) {
		t.Error("no room")
	}
	f, err = c.Open("/y/z", afc.READ_ONLY)
	check(err)
	if b, err := io.ReadAll(f); err != nil || string(b) != "from the device" {
		t.Errorf("read %q %v", b, err)
	}
	if info, err := c.DeviceInfo(); err != nil || info.TotalBytes != 128_000_000_000 {
		t.Errorf("device info %+v %v", info, err)
	}
	r.blameless(d)
}

func TestAppsAndIcons(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	var list []App
	for _, c := range "abcdefghijkl" {
		list = append(list, App{ID: "org.example." + string(c), Name: string(c), Version: "1.2", SINF: []byte{1}, Metadata: []byte{2}})
	}
	d.SetApps(list)
	e := r.entry(d.UDID())
	c, err := installationproxy.New(e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	apps, err := c.BrowseUserApps()
	if err != nil || len(apps) != len(list) {
		t.Fatalf("%d apps, %v", len(apps), err)
	}
	for i, a := range apps {
		if a.CFBundleIdentifier() != list[i].ID || a.CFBundleShortVersionString() != "1.2" {
			t.Errorf("app %d is %v", i, a)
		}
	}
	some := list[0].attributes(map[string]any{"ReturnAttributes": []any{"CFBundleIdentifier", "ApplicationSINF"}})
	if len(some) != 2 {
		t.Errorf("asked for two attributes: %v", some)
	}

	reply := r.ask(e, SpringBoard, map[string]any{"command": "getIconPNGData", "bundleId": "org.example.a"})
	data, _ := reply["pngData"].([]byte)
	if img, err := png.Decode(bytes.NewReader(data)); err != nil || img.Bounds().Dx() != iconSize {
		t.Errorf("icon: %v", err)
	}
	for _, set := range []bool{false, true} {
		d.SetPasscode(set)
		reply = r.ask(e, DiagnosticsRelay, map[string]any{"Request": "MobileGestalt", "MobileGestaltKeys": []any{"PasswordConfigured"}})
		all, _ := reply["Diagnostics"].(map[string]any)
		gestalt, _ := all["MobileGestalt"].(map[string]any)
		if gestalt["PasswordConfigured"] != set {
			t.Errorf("PasswordConfigured: %v", reply)
		}
	}
	r.blameless(d)
}

// connect starts a service.
func (r *rig) connect(e ios.DeviceEntry, service string) net.Conn {
	r.t.Helper()
	c, err := ios.ConnectToService(e, service)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c.Conn()
}

// ask sends one request to a service and returns the reply.
func (r *rig) ask(e ios.DeviceEntry, service string, request map[string]any) map[string]any {
	r.t.Helper()
	c := r.connect(e, service)
	defer c.Close()
	if err := writeMessage(c, request); err != nil {
		r.t.Fatal(err)
	}
	reply, err := readMessage(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply
}

func TestNotifications(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	e := r.entry(d.UDID())
	c, err := notificationproxy.New(e)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() { heard <- c.Observe(SyncCancelRequest, 20*time.Second) }()
	r.await(d, NotificationProxy, "observe")
	if n := d.Notify("com.example.other"); n != 0 {
		t.Errorf("%d connections listen for something else", n)
	}
	if n := d.Notify(SyncCancelRequest); n != 1 {
		t.Errorf("%d connections listen", n)
	}
	if err := <-heard; err != nil {
		t.Error(err)
	}
	c.Close()

	conn := r.connect(e, NotificationProxy)
	for _, msg := range []map[string]any{
		{"Command": "ObserveNotification", "Name": "hello"},
		{"Command": "PostNotification", "Name": "hello"},
		{"Command": "Shutdown"},
	} {
		if err := writeMessage(conn, msg); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"RelayNotification", "ProxyDeath"} {
		if msg, err := readMessage(conn); err != nil || msg["Command"] != want {
			t.Errorf("got %v %v, want %s", msg, err, want)
		}
	}
	r.blameless(d)
}

// afcCall sends one packet and returns the reply.
func afcCall(t *testing.T, c net.Conn, op afcOperation, payload string, numbers ...uint64) afcPacket {
	t.Helper()
	p := afcPacket{number: 7, op: op}
	for _, n := range numbers {
		p.args = append(p.args, number(0, n).args...)
	}
	p.args = append(p.args, payload...)
	if _, err := c.Write(p.append(nil)); err != nil {
		t.Fatal(err)
	}
	reply, err := readAFCPacket(c)
	if err != nil {
		t.Fatal(err)
	}
	if reply.number != p.number {
		t.Errorf("reply to packet %d", reply.number)
	}
	return reply
}

func wantStatus(t *testing.T, p afcPacket, want afcStatus) {
	t.Helper()
	n, _, ok := p.numbers(1)
	if p.op != afcStatusReply || !ok || afcStatus(n[0]) != want {
		t.Errorf("reply %#x %v, want status %d", uint64(p.op), p.args, want)
	}
}

// A host's whole turn at syncing, and what is found fault with when it leaves
// out or swaps steps.
func TestSyncOrder(t *testing.T) {
	const (
		open, lock, unlock, closeFile, hangUp = "open", "lock", "unlock", "close", "hang up"
	)
	good := []string{SyncWillStart, open, SyncLockRequest, lock, SyncDidStart, unlock, closeFile, SyncDidFinish, hangUp}
	for name, test := range map[string]struct {
		steps []string
		want  []string
	}{
		"good":  {good, nil},
		"twice": {append(slices.Clone(good[:8]), good...), nil},
		"lock before the request": {[]string{SyncWillStart, open, lock, unlock, closeFile, SyncDidFinish, hangUp},
			[]string{"without syncLockRequest"}},
		"no announcement": {[]string{open, SyncLockRequest, lock, unlock, closeFile, SyncDidFinish, hangUp},
			[]string{"without syncWillStart"}},
		"finish before unlock": {[]string{SyncWillStart, open, SyncLockRequest, lock, SyncDidStart, SyncDidFinish, unlock, closeFile, hangUp},
			[]string{"before the sync lock is released"}},
		"start without lock": {[]string{SyncWillStart, open, SyncLockRequest, SyncDidStart, closeFile, SyncDidFinish, hangUp},
			[]string{"syncDidStart without the sync lock"}},
		"never released": {[]string{SyncWillStart, open, SyncLockRequest, lock, SyncDidStart, hangUp},
			[]string{"closed with the sync lock held"}},
		"finish without start": {[]string{SyncDidFinish}, []string{"syncDidFinish without"}},
		"request before open": {[]string{SyncWillStart, SyncLockRequest, open, lock, unlock, closeFile, SyncDidFinish, hangUp},
			[]string{"before the lock file is open"}},
		"unlock without lock": {[]string{open, unlock, closeFile}, []string{"without a lock"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := NewDevice(Spec{PlainText: true})
				host, device := net.Pipe()
				served := make(chan struct{})
				go func() { d.serveAFC(t.Context(), device); close(served) }()
				var file uint64
				for _, step := range test.steps {
					switch step {
					case open:
						reply := afcCall(t, host, afcOpen, SyncLockFile+"\x00", 2)
						n, _, ok := reply.numbers(1)
						if reply.op != afcOpenReply || !ok {
							t.Fatalf("open: %v", reply)
						}
						file = n[0]
					case lock:
						wantStatus(t, afcCall(t, host, afcLock, "", file, 6), afcOK)
					case unlock:
						wantStatus(t, afcCall(t, host, afcLock, "", file, 12), afcOK)
					case closeFile:
						wantStatus(t, afcCall(t, host, afcClose, "", file), afcOK)
					case hangUp:
					default:
						d.syncPost(step)
					}
					if want := step == SyncDidStart && name == "good"; want && !d.Syncing(t.Context()) {
						t.Error("not syncing")
					}
				}
				host.Close()
				<-served
				got := d.Violations()
				if len(got) != len(test.want) {
					t.Fatalf("violations %q, want %q", got, test.want)
				}
				for i := range got {
					if !strings.Contains(got[i], test.want[i]) {
						t.Errorf("violation %q, want %q", got[i], test.want[i])
					}
				}
			})
		})
	}
}

func TestLockBusy(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	d.SetLockBusy(2)
	d.syncPost(SyncWillStart)
	c := r.connect(r.entry(d.UDID()), AFC)
	n, _, _ := afcCall(t, c, afcOpen, SyncLockFile, 2).numbers(1)
	d.syncPost(SyncLockRequest)
	for _, want := range []afcStatus{afcWouldBlock, afcWouldBlock, afcOK} {
		wantStatus(t, afcCall(t, c, afcLock, "", n[0], 6), want)
	}
	// Another program comes too late.
	d.syncPost(SyncDidStart)
	d.syncPost(SyncWillStart)
	d.syncPost(SyncLockRequest)
	if !d.Syncing(t.Context()) {
		t.Error("the first is not syncing any more")
	}
	other := r.connect(r.entry(d.UDID()), AFC)
	m, _, _ := afcCall(t, other, afcOpen, SyncLockFile, 2).numbers(1)
	wantStatus(t, afcCall(t, other, afcLock, "", m[0], 6), afcWouldBlock)
	wantStatus(t, afcCall(t, other, afcLock, "", m[0], 5), afcWouldBlock)
	r.blameless(d)
	// A link that breaks is no violation, and frees the lock.
	d.Break(AFC)
	r.await(d, AFC, "unlock")
	r.blameless(d)
}

func TestHeartbeat(t *testing.T) {
	const interval = 50 * time.Millisecond
	r := newRig(t)
	d := NewDevice(Spec{HeartbeatInterval: interval, Key: testKey(t)})
	if err := r.Trust(d); err != nil {
		t.Fatal(err)
	}
	r.Attach(d, Network)
	e := r.entry(d.UDID())
	heart := r.connect(e, Heartbeat)
	files := r.connect(e, AFC)
	for range 3 {
		msg, err := readMessage(heart)
		if err != nil || msg["Command"] != "Marco" {
			t.Fatalf("%v %v", msg, err)
		}
		if err := writeMessage(heart, map[string]any{"Command": "Polo"}); err != nil {
			t.Fatal(err)
		}
	}
	afcCall(t, files, afcDeviceInfo, "")
	// No answer any more.
	_ = files.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := files.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the session lives on: %v", err)
	}
	r.await(d, Heartbeat, "lost")
	r.blameless(d)
}
