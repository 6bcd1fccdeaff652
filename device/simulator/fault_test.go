package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/pairing"
)

// echo answers each byte with one byte.
func echo(_ context.Context, conn net.Conn) {
	b := make([]byte, 1)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

// exchange sends n bytes and returns how many bytes come back.
func exchange(c net.Conn, n int) (int, error) {
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	for i := range n {
		if _, err := c.Write([]byte{1}); err != nil {
			return i, err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return i, err
		}
	}
	return n, nil
}

func TestCut(t *testing.T) {
	for _, plain := range []bool{false, true} {
		r := newRig(t)
		d := r.device(Spec{PlainText: plain})
		d.Handle("echo", echo)
		e := r.entry(d.UDID())
		for _, test := range []struct {
			fault Fault
			want  int // bytes that come back
		}{
			{Fault{Service: "echo", After: 0}, 0},
			{Fault{Service: "echo", After: 1}, 0},
			{Fault{Service: "echo", After: 6}, 3},
			{Fault{Service: "echo", After: 7}, 3},
			{Fault{Service: "echo", Direction: FromHost, After: 4}, 3},
			{Fault{Service: "echo", Direction: ToHost, After: 4}, 4},
		} {
			t.Run(fmt.Sprintf("plain=%v %+v", plain, test.fault), func(t *testing.T) {
				d.Inject(test.fault)
				got, err := exchange(r.connect(e, "echo"), 10)
				if got != test.want || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%d bytes came back: %v", got, err)
				}
				// The fault applied to one connection, so the next connection has none.
				c := r.connect(e, "echo")
				if got, err := exchange(c, 10); err != nil {
					t.Errorf("the next connection: %d %v", got, err)
				}
				d.Break("echo")
				if got, err := exchange(c, 10); err == nil {
					t.Errorf("after the cut %d bytes came back", got)
				}
			})
		}
	}
}

func TestSilence(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	d.Handle("echo", echo)
	d.Inject(Fault{Service: "echo", After: 4, Silent: true})
	c := r.connect(r.entry(d.UDID()), "echo")
	if n, err := exchange(c, 2); err != nil {
		t.Fatal(n, err)
	}
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("a silent device must still take bytes: %v", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("not silent: %v", err)
	}
	c.Close()
	r.await(d, "echo", "close")
}

func TestLatency(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{PlainText: true})
	d.Handle("echo", echo)
	c := r.connect(r.entry(d.UDID()), "echo")
	d.SetLatency(20 * time.Millisecond)
	begin := time.Now()
	if _, err := exchange(c, 3); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 60*time.Millisecond {
		t.Errorf("three answers took %v", took)
	}
}

func TestDetachBreaksConnections(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{})
	d.Handle("echo", echo)
	e := r.entry(d.UDID())
	c := r.connect(e, "echo")
	if _, err := exchange(c, 1); err != nil {
		t.Fatal(err)
	}
	r.Detach(d)
	// Another goroutine closes the connection. Until then, answers may still arrive.
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := exchange(c, 1); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a detached device still answers after a minute")
		}
	}
	if n := len(r.attachedLinks()); n != 0 {
		t.Errorf("%d devices are attached", n)
	}
}

// A host with the certificate of another pairing is refused.
func TestForeignCertificate(t *testing.T) {
	d, other := NewDevice(Spec{}), NewDevice(Spec{})
	hosts := func(d *Device) pairing.Host {
		if _, err := d.hosts.PairNew("BUID", "", time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, h := range d.hosts.All() {
			return h
		}
		return pairing.Host{}
	}
	conf, err := d.hosts.TLS(hosts(d), d.tlsMax())
	if err != nil {
		t.Fatal(err)
	}
	foreign := hosts(other)
	key, err := other.key()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	done := make(chan error, 1)
	go func() {
		_, err := startTLS(t.Context(), b, conf)
		b.Close()
		done <- err
	}()
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{
		{Certificate: [][]byte{foreign.Certificates.Device}, PrivateKey: key},
	}})
	go func() { _, _ = io.Copy(io.Discard, client) }()
	if err := <-done; !errors.Is(err, pairing.ErrHostCertificate) || len(d.Violations()) != 1 {
		t.Errorf("%v %q", err, d.Violations())
	}
}
