package device

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
	"github.com/snap-backup/snap/device/simulator"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "unix /var/run/usbmuxd", "UNIX:/a/b": "unix /a/b", "unix:/a/b": "unix /a/b", "UNIX:///a/b": "unix /a/b", "/a/b": "unix /a/b",
		"127.0.0.1:27015": "tcp 127.0.0.1:27015", "[::1]:5": "tcp [::1]:5", "tcp://host:7": "tcp host:7", "nas:9": "tcp nas:9",
		"UNIX:": "", "UNIX://a": "", "a": "", "a:": "", "a:b": "", "a:0": "", "a:99999": "", ":5": "", "x://y": "", "a:1:2": "", "://": "", "unix": "",
	} {
		network, address, err := parseAddress(in, "linux")
		if got := network + " " + address; err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), AddressVariable) {
			t.Errorf("%q: %v", in, err)
		}
	}
	if network, address, err := parseAddress("", "windows"); err != nil || network != "tcp" || address != "127.0.0.1:27015" {
		t.Error(network, address, err)
	}
	for _, goos := range []string{"linux", "darwin", "windows", "freebsd"} {
		if !strings.Contains(MuxHint(goos), AddressVariable) {
			t.Error(goos)
		}
	}
	if _, err := Open("nonsense"); err == nil {
		t.Error("an invalid address was accepted")
	}
}

func TestNoMux(t *testing.T) {
	t.Parallel()
	m, err := Open(filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.List(t.Context()); !errors.Is(err, ErrNoMux) || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
	if err := m.Watch(t.Context(), nil); !errors.Is(err, ErrNoMux) {
		t.Error(err)
	}
}

func TestListPrefersTheCable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if list, err := r.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	d := simulator.NewDevice(simulator.Spec{})
	air := r.Attach(d, simulator.Network)
	cable := r.Attach(d, simulator.USB)
	other := simulator.NewDevice(simulator.Spec{UDID: "00008020-000000000000002E"})
	r.Attach(other, simulator.Network)
	list, err := r.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	want := []Link{{USB, int64(cable.ID)}, {Network, int64(air.ID)}}
	if list[0].UDID != d.UDID() || !slices.Equal(list[0].Links, want) || list[1].Link().Kind != Network {
		t.Errorf("%+v", list)
	}
}

// serveBytes returns a usbmuxd that answers every client with reply.
func serveBytes(t *testing.T, reply []byte) *Mux {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4096))
				_, _ = c.Write(reply)
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	m, err := Open(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func muxMessage(t testing.TB, v any) []byte {
	t.Helper()
	b, err := plist.EncodeXML(v)
	if err != nil {
		t.Fatal(err)
	}
	n := len(b) + 16
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0}, b...)
}

func TestDamagedMuxAnswers(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string][]byte{
		"result":    muxMessage(t, map[string]any{"MessageType": "Result", "Number": 1}),
		"no number": muxMessage(t, map[string]any{"MessageType": "Result"}), "list": muxMessage(t, []any{1}),
		"empty": muxMessage(t, map[string]any{}), "short": {3, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0},
		"huge": {0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0}, "garbage": {20, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 'a', 'b', 'c', 'd'},
	} {
		if list, err := serveBytes(t, reply).List(t.Context()); err == nil {
			t.Errorf("%s: %v", name, list)
		}
		// connect must not treat a damaged answer as success.
		if name != "list" && name != "empty" {
			if c, err := serveBytes(t, reply).connect(t.Context(), Link{USB, 1}, 5); err == nil {
				t.Errorf("%s: connected", name)
				c.Close()
			}
		}
	}
	odd := []any{
		1, map[string]any{}, map[string]any{"DeviceID": 1, "Properties": map[string]any{"SerialNumber": "../../etc", "ConnectionType": "USB"}},
		map[string]any{"DeviceID": 0, "Properties": map[string]any{"SerialNumber": "0000812000000000", "ConnectionType": "USB"}},
		map[string]any{"DeviceID": 2, "Properties": map[string]any{"SerialNumber": "000081200000000000000001", "ConnectionType": "Pigeon"}},
		map[string]any{"DeviceID": 3, "Properties": map[string]any{"SerialNumber": "000081200000000000000001", "ConnectionType": "USB"}},
	}
	list, err := serveBytes(t, muxMessage(t, map[string]any{"DeviceList": odd})).List(t.Context())
	if err != nil || len(list) != 1 || list[0].UDID != "00008120-0000000000000001" || list[0].serial != "000081200000000000000001" {
		t.Errorf("%+v %v", list, err)
	}
}

func TestSilentMuxEndsWithTheContext(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := serveBytes(t, nil).List(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := r.device(simulator.Spec{})
	events := make(chan Event, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Watch(ctx, func(e Event) error { events <- e; return nil }) }()
	expect := func(c Change, k Kind) {
		t.Helper()
		select {
		case e := <-events:
			if e.Change != c || e.Entry.UDID != d.UDID() || e.Entry.Link().Kind != k {
				t.Errorf("%+v, want %s by %s", e, c, k)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no event %s", c)
		}
	}
	expect(Attached, USB)
	air := r.Attach(d, simulator.Network)
	expect(Attached, Network)
	air.Detach()
	expect(Detached, Network)
	r.Detach(d)
	expect(Detached, USB)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	stop := errors.New("enough")
	r.Attach(d, simulator.USB)
	if err := r.Watch(t.Context(), func(Event) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestWatchSurvivesRestart ends and restarts usbmuxd.
func TestWatchSurvivesRestart(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	socket := filepath.Join(t.TempDir(), "m")
	m, err := Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	d := simulator.NewDevice(simulator.Spec{})
	serve := func() (end func()) {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		sim := simulator.New()
		sim.Attach(d, simulator.USB)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- sim.Serve(ctx, l) }()
		return func() { cancel(); <-done }
	}
	end := serve()
	ctx, cancel := context.WithCancel(t.Context())
	var seen []Change
	err = m.Watch(ctx, func(e Event) error {
		seen = append(seen, e.Change)
		switch len(seen) {
		case 1:
			end()
		case 2:
			end = serve()
		case 3:
			cancel()
		}
		return nil
	})
	end()
	if want := []Change{Attached, Detached, Attached}; !errors.Is(err, context.Canceled) || !slices.Equal(seen, want) {
		t.Errorf("%v %v", seen, err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := r.Find(t.Context(), ""); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	anna := simulator.NewDevice(simulator.Spec{UDID: "00008110-338EDF6E0CFEE5BC", Name: "Anna’s iPhone"})
	r.Attach(anna, simulator.USB)
	if e, err := r.Find(t.Context(), ""); err != nil || e.UDID != anna.UDID() {
		t.Errorf("%v %v", e, err)
	}
	ben := simulator.NewDevice(simulator.Spec{UDID: "00008110-00112233445566AA", Name: "Ben"})
	r.Attach(ben, simulator.Network)
	benPad := simulator.NewDevice(simulator.Spec{UDID: "1234567890123456789012345678901234567890", Name: "Ben’s iPad"})
	r.Attach(benPad, simulator.USB)
	for in, want := range map[string]*simulator.Device{
		"00008110-338EDF6E0CFEE5BC": anna, "00008110338edf6e0cfee5bc": anna, "anna's iphone": anna, "Anna": anna, "00008110-33": anna,
		"ben": ben, "BEN'S": benPad, "1234": benPad,
	} {
		if e, err := r.Find(t.Context(), in); err != nil || e.UDID != want.UDID() {
			t.Errorf("%q: %v %v", in, e.UDID, err)
		}
	}
	for in, want := range map[string]error{"00008110": ErrAmbiguous, "": ErrAmbiguous, "12": ErrNotFound, "Carl": ErrNotFound} {
		_, err := r.Find(t.Context(), in)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "Anna’s iPhone") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzMux(f *testing.F) {
	for _, v := range []any{
		map[string]any{"MessageType": "Result", "Number": 3}, map[string]any{"DeviceList": []any{map[string]any{"DeviceID": 3, "MessageType": "Attached",
			"Properties": map[string]any{"SerialNumber": "000081200000000000000001", "ConnectionType": "USB"}}}},
		map[string]any{"MessageType": "Detached", "DeviceID": 3},
		map[string]any{"HostID": "X", "EscrowBag": []byte("12345678901234567890123456789012"), "HostCertificate": []byte("PEM")},
	} {
		f.Add(muxMessage(f, v)[16:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseRecord(b)
		d, err := stream.DecodeMux(b)
		if err != nil {
			return
		}
		_ = resultOf(d)
		list, _ := parseList(d)
		for _, e := range list {
			if len(e.Links) == 0 || !isUDID(e.UDID) || strings.ContainsAny(e.UDID, "/\\.") {
				t.Fatalf("%+v", e)
			}
		}
		w := watcher{fn: func(Event) error { return nil }, known: map[int64]Entry{}}
		_ = w.handle(d)
	})
}
