package simulator

import (
	"context"
	"crypto/rsa"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/simulator/pairing"
)

func testKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := pairing.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rig is a simulated usbmuxd on a socket. Clients find it through the environment.
type rig struct {
	*Simulator
	t       *testing.T
	address string
	ctx     context.Context
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "mux") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	r := &rig{New(), t, Address(l.Addr()), ctx}
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	ios.SetLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Setenv("USBMUXD_SOCKET_ADDRESS", r.address)
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	return r
}

// device attaches a device that trusts this host.
func (r *rig) device(spec Spec) *Device {
	r.t.Helper()
	d := NewDevice(spec)
	r.Attach(d, USB)
	if err := r.Trust(d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// entry returns the device as go-ios describes it.
func (r *rig) entry(udid string) ios.DeviceEntry {
	r.t.Helper()
	e, err := ios.GetDevice(udid)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func (r *rig) noViolations(devices ...*Device) {
	r.t.Helper()
	for _, d := range devices {
		for _, v := range d.Violations() {
			r.t.Errorf("%s: violation: %s", d.Name(), v)
		}
	}
}

func (r *rig) await(d *Device, service, kind string) {
	r.t.Helper()
	_, err := d.Await(r.ctx, func(e Event) bool { return e.Service == service && e.Kind == kind })
	if err != nil {
		r.t.Fatalf("no %s of %s: %v", kind, service, err)
	}
}
