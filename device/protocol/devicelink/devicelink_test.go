package devicelink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// pair returns both ends of a connection.
func pair(t testing.TB, o Options) (host, device *Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return New(a, o), New(b, o)
}

// raw returns a connection whose peer sends the bytes of in and closes it.
func raw(t testing.TB, in []byte) *Conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	go func() { b.Write(in); b.Close() }()
	return New(a, Options{})
}

func TestGreeting(t *testing.T) {
	for _, major := range []int64{300, 400, 401} {
		host, device := pair(t, Options{})
		done := make(chan error, 1)
		go func() { done <- device.OfferVersion(major) }()
		got, err := host.AcceptVersion()
		if err != nil || got != major {
			t.Fatal(got, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	host, device := pair(t, Options{})
	go device.WriteMessage(VersionExchange, 299, 0)
	if _, err := host.AcceptVersion(); !errors.Is(err, ErrFormat) {
		t.Fatal(err)
	}
}

func TestStatus(t *testing.T) {
	host, device := pair(t, Options{})
	all := []Status{
		{0, "", map[string]any{}},
		{StatusMulti, "Multi status", map[string]any{"UDID/x": map[string]any{"DLFileErrorCode": int64(StatusNoFile)}}},
		{0, "", int64(1 << 40)},
	}
	go func() {
		for _, s := range all {
			host.WriteStatus(s.Code, s.Text, s.Payload)
		}
		host.WriteMessage(StatusResponse, 0, "x")
	}()
	for _, want := range all {
		got, err := device.ReadStatus()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, error %v; want %v", got, err, want)
		}
	}
	if _, err := device.ReadStatus(); !errors.Is(err, ErrFormat) {
		t.Errorf("an answer of three elements: %v", err)
	}
}

func TestMessageElements(t *testing.T) {
	m := Message{"N", int64(-13), 2.0, []any{"a", "b"}, map[string]any{"k": "v"}, uint64(1<<64 - 13), []any{1}}
	if n, ok := m.Int(1); !ok || n != -13 {
		t.Error(n, ok)
	}
	if n, ok := m.Int(5); !ok || n != -13 {
		t.Error(n, ok)
	}
	if n, ok := m.Int(2); !ok || n != 2 {
		t.Error(n, ok)
	}
	if l, ok := m.Texts(3); !ok || len(l) != 2 {
		t.Error(l, ok)
	}
	if _, ok := m.Texts(6); ok {
		t.Error("numbers were read as texts")
	}
	if d, ok := m.Dict(4); !ok || d["k"] != "v" {
		t.Error(d, ok)
	}
	for i := 7; i < 9; i++ {
		_, a := m.Int(i)
		_, b := m.Real(i)
		_, c := m.Text(i)
		_, d := m.Dict(i)
		_, e := m.Texts(i)
		if a || b || c || d || e {
			t.Error("a missing element was returned")
		}
	}
}

func TestFiles(t *testing.T) {
	host, device := pair(t, Options{Busy: time.Minute, Write: time.Minute})
	sizes := []int{0, 1, MaxFrame - 1, MaxFrame, MaxFrame + 1, 3*MaxFrame + 7}
	go func() {
		for _, n := range sizes {
			host.WriteName("UDID/file")
			host.SendFile(iotest.HalfReader(bytes.NewReader(bytes.Repeat([]byte("x"), n))))
		}
		host.EndNames()
		host.WriteStatus(0, "", nil)
	}()
	for _, n := range sizes {
		name, err := device.ReadName()
		if err != nil || name != "UDID/file" {
			t.Fatal(name, err)
		}
		var b bytes.Buffer
		got, remote, err := device.ReceiveFile(&b)
		if err != nil || remote != "" || got != int64(n) || b.Len() != n {
			t.Fatal(got, remote, err)
		}
	}
	if name, err := device.ReadName(); name != "" || err != nil {
		t.Fatal(name, err)
	}
	if _, err := device.ReadStatus(); err != nil {
		t.Fatal(err)
	}
}

func TestFailuresStayInStep(t *testing.T) {
	host, device := pair(t, Options{})
	broken := errors.New("broken disk")
	sent := make(chan error, 2)
	go func() {
		device.WriteName("a")
		_, err := device.SendFile(io.MultiReader(strings.NewReader("head"), iotest.ErrReader(broken)))
		sent <- err
		device.WriteName("b")
		_, err = device.SendFile(strings.NewReader(strings.Repeat("y", 5*MaxFrame)))
		sent <- err
		device.WriteName("c")
		device.SendError(KindDeviceError, "")
		device.EndNames()
	}()
	host.ReadName()
	var b bytes.Buffer
	if n, remote, err := host.ReceiveFile(&b); n != 4 || remote != "broken disk" || err != nil {
		t.Fatal(n, remote, err)
	}
	var src *SourceError
	if err := <-sent; !errors.As(err, &src) || !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if name, _ := host.ReadName(); name != "b" {
		t.Fatal(name)
	}
	full := errors.New("disk full")
	n, _, err := host.ReceiveFile(failing{full})
	var sink *SinkError
	if n != 5*MaxFrame || !errors.As(err, &sink) || !errors.Is(err, full) {
		t.Fatal(n, err)
	}
	if name, _ := host.ReadName(); name != "c" {
		t.Fatal(name)
	}
	if _, remote, err := host.ReceiveFile(io.Discard); remote == "" || err != nil {
		t.Fatal(remote, err)
	}
	if name, err := host.ReadName(); name != "" || err != nil {
		t.Fatal(name, err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestUnexpectedEndOfSource(t *testing.T) {
	host, device := pair(t, Options{})
	go func() {
		host.SendFile(io.MultiReader(strings.NewReader("head"), iotest.ErrReader(io.ErrUnexpectedEOF)))
		host.EndNames()
	}()
	if _, remote, err := device.ReceiveFile(io.Discard); remote == "" || err != nil {
		t.Fatal(remote, err)
	}
}

func TestHostileLengths(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, 1<<31)
	for name, in := range map[string][]byte{
		"no message":       {0, 0, 0, 0},
		"absurd message":   long,
		"cut message":      {0, 0, 0, 9, 'b'},
		"no plist":         {0, 0, 0, 4, 'a', 'b', 'c', 'd'},
		"half of a length": {0, 0},
	} {
		if m, err := raw(t, in).ReadMessage(); err == nil || err == io.EOF {
			t.Errorf("%s: %v, error %v", name, m, err)
		}
	}
	if _, err := raw(t, nil).ReadMessage(); err != io.EOF {
		t.Errorf("closed connection: %v", err)
	}
	if _, err := raw(t, long).ReadName(); !errors.Is(err, ErrFormat) {
		t.Errorf("absurd name: %v", err)
	}
	for name, in := range map[string][]byte{
		"no kind":      {0, 0, 0, 0},
		"unknown kind": {0, 0, 0, 1, 7},
		"cut data":     append(bytes.Clone(long), KindData, 1, 2, 3),
		"cut text":     append(bytes.Clone(long), KindHostError, 1, 2, 3),
	} {
		if _, _, err := raw(t, in).ReceiveFile(io.Discard); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestAnnouncedMessage announces a long message and sends its beginning. Reading it
// must take memory only for the bytes that have arrived.
func TestAnnouncedMessage(t *testing.T) {
	in := append(binary.BigEndian.AppendUint32(nil, DefaultMaxMessage), "bplist00"...)
	l := raw(t, in)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l.ReadMessage()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes", n)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, testDeadlines)
}

func testDeadlines(t *testing.T) {
	host, device := pair(t, Options{Idle: 30 * time.Millisecond, Busy: 30 * time.Millisecond, Write: 30 * time.Millisecond})
	if _, err := host.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	if err := device.WriteStatus(0, "", nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a peer that does not read: %v", err)
	}
	host, device = pair(t, Options{Idle: time.Hour, Busy: 30 * time.Millisecond})
	go device.c.Write([]byte{0, 0, 1})
	if _, err := host.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence inside a message: %v", err)
	}
}

func BenchmarkReceive(b *testing.B) {
	const size = 1 << 20
	host, device := pair(b, Options{})
	data := make([]byte, size)
	go func() {
		for {
			if _, err := device.SendFile(bytes.NewReader(data)); err != nil {
				return
			}
		}
	}()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := host.ReceiveFile(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzPeer reads arbitrary bytes from a peer. Reading must end without a panic.
func FuzzPeer(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x04name\x00\x00\x00\x03\x0cab\x00\x00\x00\x01\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x04name\x00\x00\x00\x03\x0bno\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		raw(t, in).ReadMessage()
		l := raw(t, in)
		for {
			name, err := l.ReadName()
			if err != nil || name == "" {
				break
			}
			if _, _, err := l.ReceiveFile(io.Discard); err != nil {
				break
			}
		}
	})
}

// TestDeviceSide tests a Conn with Options.Device, where it differs from the host's
// side.
func TestDeviceSide(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	device, host := New(a, Options{Device: true, MaxFrame: 100}), New(b, Options{})
	sent := make(chan error, 1)
	go func() {
		_, err := device.SendFile(iotest.ErrReader(errors.New("no longer there")))
		sent <- errors.Join(err, device.EndNames())
	}()
	kind := make([]byte, 5)
	if _, err := io.ReadFull(b, kind); err != nil || kind[4] != KindDeviceError {
		t.Fatalf("a file that the device cannot read ended with %x, %v", kind, err)
	}
	if _, err := io.CopyN(io.Discard, b, int64(len("no longer there"))+4); err != nil {
		t.Fatal(err)
	}
	var source *SourceError
	if err := <-sent; !errors.As(err, &source) {
		t.Fatal(err)
	}
	go func() {
		_, err := host.SendFile(bytes.NewReader(make([]byte, 101)))
		sent <- errors.Join(err, host.EndNames())
	}()
	if _, _, err := device.ReceiveFile(io.Discard); !errors.Is(err, ErrFormat) {
		t.Errorf("a frame over the limit: %v", err)
	}
	a.Close()
	<-sent
}
