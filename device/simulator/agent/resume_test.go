package agent

import (
	"fmt"
	"testing"

	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/mberror"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// setScript sets the device's faults.
func (d *device) setScript(list ...string) {
	d.t.Helper()
	var s faults.Script
	for _, text := range list {
		f, err := faults.Parse(text)
		if err != nil {
			d.t.Fatal(err)
		}
		s = append(s, f)
	}
	if err := d.SetScript(s); err != nil {
		d.t.Fatal(err)
	}
}

// mustBreak runs a backup, which must end without a response.
func (d *device) mustBreak(h *host) Run {
	d.t.Helper()
	if response, err := d.send(h, d.request("Backup")); err == nil {
		d.t.Fatalf("the run ends with %v", response)
	}
	return d.LastRun()
}

func TestResume(t *testing.T) {
	t.Parallel()
	type test struct {
		fault, resumed, password string
		incremental              bool
	}
	var tests []test
	for _, password := range []string{"", "secret"} {
		for _, incremental := range []bool{false, true} {
			for _, c := range []struct{ fault, resumed string }{
				{"upload:2=cut", "uploading"},
				{"manifests=cut", "uploading"},
				{"move:2=cut", "moving"},
				{"remove=cut", "removing"},
				{"verify=cut", ""},
			} {
				tests = append(tests, test{c.fault, c.resumed, password, incremental})
			}
		}
	}
	for _, i := range faultpoint.Choose(t, len(tests), 8) {
		c := tests[i]
		t.Run(fmt.Sprintf("%s/%s/%t", c.fault, c.password, c.incremental), func(t *testing.T) {
			t.Parallel()
			d, h := newDevice(t, Options{Password: c.password}), newHost(t)
			if c.incremental {
				d.mustRequest(h, 0, "Backup")
				d.SetContent(d.nextDay())
				switch c.fault {
				case "upload:2=cut":
					c.fault = "manifests=cut" // the changes of a day fill less than two batches
				case "move:2=cut":
					c.fault = "move:3=cut"
				}
			}
			d.setScript(c.fault)
			broken := d.mustBreak(h)
			again := d.mustRequest(h, 0, "Backup")
			if again.Resumed != c.resumed {
				t.Errorf("resumed from %q, want %q", again.Resumed, c.resumed)
			}
			if c.resumed == "uploading" {
				if again.UUID != broken.UUID || again.Spared != broken.Files || again.Full == c.incremental || again.Resent != 0 {
					t.Errorf("interrupted %+v\nresumed %+v", broken, again)
				}
			} else if again.Files != 0 || again.Full {
				t.Errorf("interrupted %+v\nnext %+v", broken, again)
			}
			d.checkSame(h, c.password)
			d.noViolations()
		})
	}
}

// TestResumeForgotten resumes a backup in three cases: the device has forgotten what
// it sent, its files have changed, and the host has lost a file.
func TestResumeForgotten(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("six backups")
	}
	d, h := newDevice(t, Options{}), newHost(t)
	d.setScript("manifests=cut")
	broken := d.mustBreak(h)
	d.Forget()
	again := d.mustRequest(h, 0, "Backup")
	if again.Spared != 0 || again.Files != broken.Files || !again.Full || again.UUID == broken.UUID {
		t.Errorf("forgotten: %+v", again)
	}
	d.checkSame(h, "")

	d.SetContent(d.nextDay())
	d.setScript("manifests=cut")
	broken = d.mustBreak(h)
	d.SetContent(d.nextDay())
	again = d.mustRequest(h, 0, "Backup")
	if again.Spared == 0 || again.Spared >= broken.Files || again.Resent == 0 {
		t.Errorf("changed since: %+v after %+v", again, broken)
	}
	d.checkSame(h, "")

	// The host lost a file.
	d.SetContent(d.nextDay())
	d.setScript("manifests=cut")
	broken = d.mustBreak(h)
	files := d.blobs(h, "Snapshot/")
	if len(files) != broken.Files {
		t.Fatalf("%d files of %d", len(files), broken.Files)
	}
	delete(h.files, files[0])
	again = d.mustRequest(h, 0, "Backup")
	if again.Files != 1 || again.Resent != 1 {
		t.Errorf("one file lost: %+v", again)
	}
	d.checkSame(h, "")
	d.noViolations()
}

// TestFallBack tests that a backup is a full one if the old backup is unusable.
func TestFallBack(t *testing.T) {
	t.Parallel()
	remove := func(name string) func(*device, *host) {
		return func(d *device, h *host) { delete(h.files, d.ownPath(name)) }
	}
	write := func(name, text string) func(*device, *host) {
		return func(d *device, h *host) { h.files[d.ownPath(name)] = []byte(text) }
	}
	cases := map[string]struct {
		spoil func(d *device, h *host)
		code  int64
	}{
		"status missing":     {remove("Status.plist"), 0},
		"status of junk":     {write("Status.plist", "x"), 0},
		"file missing":       {func(d *device, h *host) { delete(h.files, d.blobs(h, "")[7]) }, 0},
		"encryption on":      {func(d *device, h *host) { d.setPassword([]byte("new")) }, 0},
		"no manifest":        {remove("Manifest.plist"), mberror.Damaged},
		"no database":        {remove("Manifest.db"), 0},
		"database of junk":   {write("Manifest.db", "junk"), 0},
		"of an earlier time": {write("Status.plist", oldStatus), 0},
	}
	for _, name := range chosen(t, cases) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cases[name]
			d, h := newDevice(t, Options{}), newHost(t)
			d.mustRequest(h, 0, "Backup")
			c.spoil(d, h)
			run := d.mustRequest(h, c.code, "Backup")
			if c.code != 0 {
				return
			}
			if !run.Full {
				t.Errorf("%+v", run)
			}
			d.checkSame(h, string(d.secret()))
			if len(h.files) != len(h.below(d.Device().UDID)) {
				t.Error("there are files outside of the backup")
			}
		})
	}
}

// oldStatus is a Status.plist as iOS 9 writes it.
const oldStatus = `<plist version="1.0"><dict><key>Version</key><string>2.4</string><key>SnapshotState</key><string>finished</string></dict></plist>`
