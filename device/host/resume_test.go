package host

import (
	"reflect"
	"testing"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/lab"
)

// Simulated devices that were saved look the same to a host in another process:
// they trust the host, the next backup continues from the last one, and
// restored files are present.
func TestSavedDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes two backups and a restore")
	}
	t.Parallel()
	dir := t.TempDir()
	r := newRigWith(t, lab.Options{Dir: dir})
	spare, err := r.lab.AddSpare(t.Context(), simulator.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	r.do("next")
	r.do("password 1 pears")
	if err := r.Repo.KeepDevicePassword(t.Context(), r.device.UDID(), []byte("pears")); err != nil {
		t.Fatal(err)
	}
	res, err := r.Backup(t.Context(), r.entry(), BackupOptions{SpoolDir: t.TempDir()}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := r.Mux.Find(t.Context(), spare.UDID())
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.PlanRestore(t.Context(), e, res.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Restore(t.Context(), p, RestoreOptions{Password: []byte("pears")}, &heard{}); err != nil {
		t.Fatal(err)
	}
	if err := r.lab.Save(); err != nil {
		t.Fatal(err)
	}
	before := map[string][]string{}
	for _, d := range r.lab.Devices() {
		before[d.UDID()] = paths(t, d.Agent.Content())
	}

	l, found, err := lab.Resume(t.Context(), lab.Options{Dir: dir, PlainText: true, Devices: 7, Seed: 99})
	if err != nil || !found {
		t.Fatal(found, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if r.Mux, err = device.Open(devicetest.Serve(t, l)); err != nil {
		t.Fatal(err)
	}
	for _, d := range l.Devices() {
		if !reflect.DeepEqual(paths(t, d.Agent.Content()), before[d.UDID()]) {
			t.Errorf("%s has other files than before", d.Name())
		}
	}
	if n := len(l.Devices()); n != len(before) || l.Day() != 1 || !l.Devices()[0].Agent.WillEncrypt() {
		t.Errorf("%d devices on day %d", n, l.Day())
	}
	again, err := r.Backup(t.Context(), r.entry(), BackupOptions{SpoolDir: t.TempDir()}, &heard{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Parent == nil || again.Parent.ID != res.Snapshot.ID || again.Files > 10 || again.Locked != nil {
		t.Errorf("the next backup received %d files: %+v", again.Files, again)
	}
	devicetest.NoViolations(t, l.Devices()...)
	if _, found, err := lab.Resume(t.Context(), lab.Options{Dir: t.TempDir()}); found || err != nil {
		t.Error(found, err)
	}
}

func paths(t *testing.T, c devicefiles.Source) (all []string) {
	t.Helper()
	records, err := c.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records.All() {
		all = append(all, rec.Domain+"-"+rec.RelativePath)
	}
	return all
}
