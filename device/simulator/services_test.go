package simulator

import (
	"bytes"
	"encoding/binary"
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
	"github.com/snap-backup/snap/device/simulator/afcd"
	"github.com/snap-backup/snap/device/simulator/message"
	"github.com/snap-backup/snap/device/simulator/synclock"
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
		t.Error("a missing file has a size")
	}
	if err := c.Remove("/a"); err == nil {
		t.Error("a directory with content was removed")
	}
	check(c.RemoveAll("/a"))
	if _, ok := d.ReadFile("/a/b/größer"); ok {
		t.Error("a removed file exists")
	}
	if !d.WriteFile("/x/../../y/z", []byte("from the device")) {
		t.Error("a file was not written")
	}
	f, err = c.Open("/y/z", afc.READ_ONLY)
	check(err)
	if b, err := io.ReadAll(f); err != nil || string(b) != "from the device" {
		t.Errorf("read %q %v", b, err)
	}
	if info, err := c.DeviceInfo(); err != nil || info.TotalBytes != 128_000_000_000 {
		t.Errorf("device info %+v %v", info, err)
	}
	r.noViolations(d)
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
	r.noViolations(d)
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
	if err := message.Write(c, request); err != nil {
		r.t.Fatal(err)
	}
	reply, err := message.Read(c)
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
	go func() { heard <- c.Observe(SyncCancelRequest, 2*time.Minute) }()
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
		if err := message.Write(conn, msg); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"RelayNotification", "ProxyDeath"} {
		if msg, err := message.Read(conn); err != nil || msg["Command"] != want {
			t.Errorf("got %v %v, want %s", msg, err, want)
		}
	}
	r.noViolations(d)
}

// afcCall sends one packet and returns the reply.
func afcCall(t *testing.T, c net.Conn, op afcd.Operation, payload string, numbers ...uint64) afcd.Packet {
	t.Helper()
	p := afcd.Packet{Number: 7, Op: op}
	for _, n := range numbers {
		p.Args = binary.LittleEndian.AppendUint64(p.Args, n)
	}
	p.Args = append(p.Args, payload...)
	if _, err := c.Write(p.Append(nil)); err != nil {
		t.Fatal(err)
	}
	reply, err := afcd.ReadPacket(c)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Number != p.Number {
		t.Errorf("reply to packet %d", reply.Number)
	}
	return reply
}

func wantStatus(t *testing.T, p afcd.Packet, want afcd.Status) {
	t.Helper()
	n, _, ok := p.Numbers(1)
	if p.Op != afcd.OpStatusReply || !ok || afcd.Status(n[0]) != want {
		t.Errorf("reply %#x %v, want status %d", uint64(p.Op), p.Args, want)
	}
}

// A host takes the sync lock in the right order. If it omits or swaps steps, this is a
// violation.
func TestSyncOrder(t *testing.T) {
	const (
		open, lock, unlock, closeFile, hangUp = "open", "lock", "unlock", "close", "hang up"
	)
	good := []string{synclock.WillStart, open, synclock.LockRequest, lock, synclock.DidStart, unlock, closeFile, synclock.DidFinish, hangUp}
	for name, test := range map[string]struct {
		steps []string
		want  []string
	}{
		"good":  {good, nil},
		"twice": {append(slices.Clone(good[:8]), good...), nil},
		"lock before the request": {[]string{synclock.WillStart, open, lock, unlock, closeFile, synclock.DidFinish, hangUp},
			[]string{"without syncLockRequest"}},
		"no announcement": {[]string{open, synclock.LockRequest, lock, unlock, closeFile, synclock.DidFinish, hangUp},
			[]string{"without syncWillStart"}},
		"finish before unlock": {[]string{synclock.WillStart, open, synclock.LockRequest, lock, synclock.DidStart, synclock.DidFinish, unlock, closeFile, hangUp},
			[]string{"before the sync lock is released"}},
		"start without lock": {[]string{synclock.WillStart, open, synclock.LockRequest, synclock.DidStart, closeFile, synclock.DidFinish, hangUp},
			[]string{"syncDidStart without the sync lock"}},
		"never released": {[]string{synclock.WillStart, open, synclock.LockRequest, lock, synclock.DidStart, hangUp},
			[]string{"closed with the sync lock held"}},
		"finish without start": {[]string{synclock.DidFinish}, []string{"syncDidFinish without"}},
		"request before open": {[]string{synclock.WillStart, synclock.LockRequest, open, lock, unlock, closeFile, synclock.DidFinish, hangUp},
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
						reply := afcCall(t, host, afcd.OpOpen, synclock.File+"\x00", 2)
						n, _, ok := reply.Numbers(1)
						if reply.Op != afcd.OpOpenReply || !ok {
							t.Fatalf("open: %v", reply)
						}
						file = n[0]
					case lock:
						wantStatus(t, afcCall(t, host, afcd.OpLock, "", file, 6), afcd.OK)
					case unlock:
						wantStatus(t, afcCall(t, host, afcd.OpLock, "", file, 12), afcd.OK)
					case closeFile:
						wantStatus(t, afcCall(t, host, afcd.OpClose, "", file), afcd.OK)
					case hangUp:
					default:
						d.sync.Post(step)
					}
					if want := step == synclock.DidStart && name == "good"; want && !d.Syncing(t.Context()) {
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
	d.sync.Post(synclock.WillStart)
	c := r.connect(r.entry(d.UDID()), AFC)
	n, _, _ := afcCall(t, c, afcd.OpOpen, synclock.File, 2).Numbers(1)
	d.sync.Post(synclock.LockRequest)
	for _, want := range []afcd.Status{afcd.WouldBlock, afcd.WouldBlock, afcd.OK} {
		wantStatus(t, afcCall(t, c, afcd.OpLock, "", n[0], 6), want)
	}
	// Another program comes too late to take the lock.
	d.sync.Post(synclock.DidStart)
	d.sync.Post(synclock.WillStart)
	d.sync.Post(synclock.LockRequest)
	if !d.Syncing(t.Context()) {
		t.Error("the first host has stopped syncing")
	}
	other := r.connect(r.entry(d.UDID()), AFC)
	m, _, _ := afcCall(t, other, afcd.OpOpen, synclock.File, 2).Numbers(1)
	wantStatus(t, afcCall(t, other, afcd.OpLock, "", m[0], 6), afcd.WouldBlock)
	wantStatus(t, afcCall(t, other, afcd.OpLock, "", m[0], 5), afcd.WouldBlock)
	r.noViolations(d)
	// A broken link is not a violation, and frees the lock.
	d.Break(AFC)
	r.await(d, AFC, "unlock")
	r.noViolations(d)
}

func TestHeartbeat(t *testing.T) {
	const interval = 200 * time.Millisecond
	r := newRig(t)
	d := NewDevice(Spec{HeartbeatInterval: interval})
	if err := r.Trust(d); err != nil {
		t.Fatal(err)
	}
	r.Attach(d, Network)
	e := r.entry(d.UDID())
	heart := r.connect(e, Heartbeat)
	files := r.connect(e, AFC)
	for range 3 {
		msg, err := message.Read(heart)
		if err != nil || msg["Command"] != "Marco" {
			t.Fatalf("%v %v", msg, err)
		}
		if err := message.Write(heart, map[string]any{"Command": "Polo"}); err != nil {
			t.Fatal(err)
		}
	}
	afcCall(t, files, afcd.OpDeviceInfo, "")
	// The host stops answering the heartbeat, so its connections end.
	_ = files.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := files.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the session continues: %v", err)
	}
	r.await(d, Heartbeat, "lost")
	r.noViolations(d)
}
