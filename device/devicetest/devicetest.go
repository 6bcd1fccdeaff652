// Package devicetest serves simulated devices to tests.
//
// Everything that the package starts ends with the test. The package sets no
// environment variables: a test that runs programs passes the address on to
// them.
package devicetest

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/lab"
)

// Server answers computers on a listener. It is a simulator or a lab.
type Server interface {
	Serve(context.Context, net.Listener) error
}

// Serve serves devices on a local port until the test ends. It returns the
// address of the simulated usbmuxd, as device.Open takes it.
func Serve(t testing.TB, s Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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

// Lab is a lab that is served until the test ends.
type Lab struct {
	*lab.Lab
	Address string
}

// NewLab makes devices with content and serves them. If o.Dir is empty, the
// devices use a folder of the test.
func NewLab(t testing.TB, o lab.Options) *Lab {
	t.Helper()
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
