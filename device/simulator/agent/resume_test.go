package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// script sets what goes wrong.
func (d *device) script(faults ...string) {
	d.t.Helper()
	var s Script
	for _, text := range faults {
		f, err := ParseFault(text)
		if err != nil {
			d.t.Fatal(err)
		}
		s = append(s, f)
	}
	if err := d.SetScript(s); err != nil {
		d.t.Fatal(err)
	}
}

// breaks runs a backup that has to end without a Response.
func (d *device) breaks(h *host) Run {
	d.t.Helper()
	if response, err := d.do(h, d.request("Backup")); err == nil {
		d.t.Fatalf("the run ends with %v", response)
	}
	return d.LastRun()
}

func TestResume(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		for _, incremental := range []bool{false, true} {
			for _, c := range []struct{ fault, resumed string }{
				{"upload:2=cut", "uploading"},
				{"manifests=cut", "uploading"},
				{"move:2=cut", "moving"},
				{"remove=cut", "removing"},
				{"verify=cut", ""},
			} {
				t.Run(fmt.Sprintf("%s/%s/%t", c.fault, password, incremental), func(t *testing.T) {
					if testing.Short() && (password != "") == incremental {
						t.Skip("half of the cases are enough for now")
					}
					d, h := newDevice(t, Options{Password: password}), newHost(t)
					if incremental {
						d.must(h, 0, "Backup")
						d.SetContent(d.day())
						if c.fault == "upload:2=cut" {
							c.fault = "manifests=cut" // a day is less than two batches
						}
						if c.fault == "move:2=cut" {
							c.fault = "move:3=cut"
						}
					}
					d.script(c.fault)
					broken := d.breaks(h)
					again := d.must(h, 0, "Backup")
					if again.Resumed != c.resumed {
						t.Errorf("resumed from %q", again.Resumed)
					}
					switch c.resumed {
					case "uploading":
						if again.UUID != broken.UUID || again.Spared != broken.Files || again.Full == incremental || again.Resent != 0 {
							t.Errorf("broken %+v\nagain %+v", broken, again)
						}
					default:
						if again.Files != 0 || again.Full {
							t.Errorf("broken %+v\nagain %+v", broken, again)
						}
					}
					d.same(h, password)
					d.clean()
				})
			}
		}
	}
}

// TestResumeForgotten has a device that does not know what it sent, or that has
// changed since.
func TestResumeForgotten(t *testing.T) {
	d, h := newDevice(t, Options{}), newHost(t)
	d.script("manifests=cut")
	broken := d.breaks(h)
	d.Forget()
	again := d.must(h, 0, "Backup")
	if again.Spared != 0 || again.Files != broken.Files || !again.Full || again.UUID == broken.UUID {
		t.Errorf("forgotten: %+v", again)
	}
	d.same(h, "")

	d.SetContent(d.day())
	d.script("manifests=cut")
	broken = d.breaks(h)
	d.SetContent(d.day())
	again = d.must(h, 0, "Backup")
	if again.Spared == 0 || again.Spared >= broken.Files || again.Resent == 0 {
		t.Errorf("changed since: %+v after %+v", again, broken)
	}
	d.same(h, "")

	// The host lost what it had received last.
	d.SetContent(d.day())
	d.script("manifests=cut")
	broken = d.breaks(h)
	files, err := filepath.Glob(filepath.Join(d.folder(h), "Snapshot", "*", "*"))
	if err != nil || len(files) != broken.Files {
		t.Fatalf("%d files of %d: %v", len(files), broken.Files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	again = d.must(h, 0, "Backup")
	if again.Files != 1 || again.Resent != 1 {
		t.Errorf("one file lost: %+v", again)
	}
	d.same(h, "")
	d.clean()
}

// TestFallBack holds when an old backup is good for nothing.
func TestFallBack(t *testing.T) {
	blob := func(d *device, h *host) string {
		files, err := filepath.Glob(filepath.Join(d.folder(h), "??", "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(len(files), err)
		}
		return files[0]
	}
	for name, c := range map[string]struct {
		spoil func(d *device, h *host) error
		code  int64
	}{
		"status missing": {func(d *device, h *host) error { return os.Remove(filepath.Join(d.folder(h), "Status.plist")) }, 0},
		"status of junk": {func(d *device, h *host) error {
			return os.WriteFile(filepath.Join(d.folder(h), "Status.plist"), []byte("x"), 0o644)
		}, 0},
		"file missing":  {func(d *device, h *host) error { return os.Remove(blob(d, h)) }, 0},
		"encryption on": {func(d *device, h *host) error { d.setPassword([]byte("new")); return nil }, 0},
		"no manifest":   {func(d *device, h *host) error { return os.Remove(filepath.Join(d.folder(h), "Manifest.plist")) }, codeDamaged},
		"no database":   {func(d *device, h *host) error { return os.Remove(filepath.Join(d.folder(h), "Manifest.db")) }, 0},
		"database of junk": {func(d *device, h *host) error {
			return os.WriteFile(filepath.Join(d.folder(h), "Manifest.db"), []byte("junk"), 0o644)
		}, 0},
		"of an earlier time": {func(d *device, h *host) error { return oldStatus(filepath.Join(d.folder(h), "Status.plist")) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d, h := newDevice(t, Options{}), newHost(t)
			d.must(h, 0, "Backup")
			if err := c.spoil(d, h); err != nil {
				t.Fatal(err)
			}
			run := d.must(h, c.code, "Backup")
			if c.code != 0 {
				return
			}
			if !run.Full {
				t.Errorf("%+v", run)
			}
			d.same(h, string(d.secret()))
			if left, err := filepath.Glob(filepath.Join(h.root, "*-*-*")); err != nil || len(left) > 0 {
				t.Errorf("left over: %q, %v", left, err)
			}
		})
	}
}

// oldStatus writes what iOS 9 would have.
func oldStatus(path string) error {
	return os.WriteFile(path, []byte(`<plist version="1.0"><dict><key>Version</key><string>2.4</string><key>SnapshotState</key><string>finished</string></dict></plist>`), 0o644)
}
