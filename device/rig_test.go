package device

import (
	"testing"
	"time"

	"github.com/snap-backup/snap/device/devicetest"
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
	sim := simulator.New()
	m, err := Open(devicetest.Serve(t, sim))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{sim, m, t}
}

// device attaches a device by USB that trusts this computer.
func (r *rig) device(spec simulator.Spec) *simulator.Device {
	r.t.Helper()
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

func blameless(t *testing.T, d *simulator.Device) {
	t.Helper()
	devicetest.NoViolations(t, d)
}

// soon fails a test that takes minutes, because something waited for a time-out.
func soon(t *testing.T) {
	t.Helper()
	begin := time.Now()
	t.Cleanup(func() {
		if d := time.Since(begin); d > 2*time.Minute {
			t.Errorf("it took %v", d)
		}
	})
}
