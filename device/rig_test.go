package device

import (
	"crypto/rand"
	"crypto/rsa"
	"io"
	"sync"
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
	sim := simulator.NewWithKey(key(t))
	m, err := Open(devicetest.Serve(t, sim))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{sim, m, t}
}

var oneKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) })

// key returns the key that all computers and devices in tests have, since
// generating a key takes long.
func key(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := oneKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// cachedKey returns the same key as key, as PairOptions.newKey.
func cachedKey(io.Reader, int) (*rsa.PrivateKey, error) { return oneKey() }

func newDevice(t testing.TB, spec simulator.Spec) *simulator.Device {
	t.Helper()
	if spec.Key == nil {
		spec.Key = key(t)
	}
	return simulator.NewDevice(spec)
}

// device attaches, by USB, a device that trusts this computer.
func (r *rig) device(spec simulator.Spec) *simulator.Device {
	r.t.Helper()
	d := newDevice(r.t, spec)
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
