package device

import (
	"testing"
	"time"

	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/pairing"
)

// rig is a simulated usbmuxd and a client of it.
type rig struct {
	*simulator.Simulator
	*Mux
	t *testing.T
}

func newRig(t *testing.T) *rig {
	t.Helper()
	sim := simulator.New()
	m, err := Open(devicetest.Serve(t, sim))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{sim, m, t}
}

// device attaches, by USB, a device that trusts this computer.
func (r *rig) device(spec simulator.Spec) *simulator.Device {
	r.t.Helper()
	spec.Key, _ = pairing.QuickKey()
	d := simulator.NewDevice(spec)
	r.Attach(d, simulator.USB)
	if err := r.Trust(d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// entry returns the only attached device.
func (r *rig) entry() Entry {
	r.t.Helper()
	e, err := r.Find(r.t.Context(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// failIfSlow fails a test that takes minutes. Such a test has probably waited
// for a time-out.
func failIfSlow(t *testing.T) {
	t.Helper()
	begin := time.Now()
	t.Cleanup(func() {
		if d := time.Since(begin); d > 2*time.Minute {
			t.Errorf("it took %v", d)
		}
	})
}
