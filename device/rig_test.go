package device

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator"
)

// rig is a simulated usbmuxd and a client of it.
type rig struct {
	*simulator.Simulator
	*Mux
	t *testing.T
}

func newRig(t *testing.T) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	sim := simulator.New()
	done := make(chan error, 1)
	go func() { done <- sim.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
	m, err := Open(simulator.Address(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{sim, m, t}
}

// device attaches a device by cable that trusts this computer.
func (r *rig) device(spec simulator.Spec) *simulator.Device {
	r.t.Helper()
	d := simulator.NewDevice(spec)
	r.Attach(d, simulator.USB)
	if err := r.Trust(d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// entry is the only device that is attached.
func (r *rig) entry() Entry {
	r.t.Helper()
	e, err := r.Find(r.t.Context(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func blameless(t *testing.T, d *simulator.Device) {
	t.Helper()
	for _, v := range d.Violations() {
		t.Errorf("%s: violation: %s", d.Name(), v)
	}
}

// within fails a test that takes longer than a tester waits.
func within(t *testing.T, limit time.Duration) {
	t.Helper()
	begin := time.Now()
	t.Cleanup(func() {
		if d := time.Since(begin); d > limit {
			t.Errorf("it took %v, more than %v", d, limit)
		}
	})
}
