// Package devicetest serves simulated devices to tests.
//
// Everything that the package starts ends with the test. The package sets no
// environment variables: a test that runs programs passes the address on to
// them.
package devicetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// Server answers computers on a listener. It is a simulator or a lab.
type Server interface {
	Serve(context.Context, net.Listener) error
}

// Listen listens on a Unix socket, as usbmuxd does. It costs less than TCP. Close
// removes the socket.
func Listen() (net.Listener, error) {
	// The path of a socket is limited to about 100 bytes, so the folder is not that of a
	// test.
	dir, err := os.MkdirTemp("", "mux")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &socket{l, dir}, nil
}

type socket struct {
	net.Listener
	dir string
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	_ = os.Remove(s.dir) // fails if a second Close is late
	return err
}

// Serve serves devices on a socket until the test ends. It returns the
// address of the simulated usbmuxd, as device.Open takes it.
func Serve(t testing.TB, s Server) string {
	t.Helper()
	l, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("serving the devices: %v", err)
		}
	})
	return simulator.Address(l.Addr())
}

// Plain reports whether the devices of a test are without TLS, whose handshakes are a
// quarter of the work of a small backup. Tests of every point of failure always have
// TLS, other tests at random one in four.
func Plain(rng *rand.Rand) bool { return !faultpoint.All() && rng.IntN(4) > 0 }

// Lab is a lab that is served until the test ends.
type Lab struct {
	*lab.Lab
	Address string
}

// NewLab makes devices with content and serves them. If o.Dir is empty, the
// devices use a folder of the test. Most tests get devices without TLS; see Plain. The
// others have small keys.
func NewLab(t testing.TB, o lab.Options) *Lab {
	t.Helper()
	o.PlainText, o.QuickKeys = o.PlainText || Plain(faultpoint.Rand(t)), true
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	l, err := lab.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return &Lab{Lab: l, Address: Serve(t, l)}
}

// Run executes a line that controls the devices, such as "battery 1 5"; see
// lab.Lab.Do.
func (l *Lab) Run(t testing.TB, line string) {
	t.Helper()
	if _, err := l.Do(t.Context(), line); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

// NoViolations fails the test if a computer did something to a device that a
// real device would not accept.
func NoViolations[D interface {
	Name() string
	Violations() []string
}](t testing.TB, devices ...D) {
	t.Helper()
	for _, d := range devices {
		for _, v := range d.Violations() {
			t.Errorf("%s: violation: %s", d.Name(), v)
		}
	}
}
