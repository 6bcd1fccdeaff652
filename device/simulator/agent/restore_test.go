package agent

import (
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// backedUp returns a device and a host with a backup of it. Since the backup, the
// device's content has changed by a day.
func backedUp(t *testing.T, password string) (*device, *host) {
	d, h := newDevice(t, Options{Password: password}), newHost(t)
	d.mustRequest(h, 0, "Backup")
	d.checkSame(h, password)
	d.SetContent(d.nextDay())
	return d, h
}

func options(more ...any) map[string]any {
	o := map[string]any{"RestoreSystemFiles": true, "RestoreDontCopyBackup": true, "RemoveItemsNotRestored": true, "RestoreShouldReboot": true}
	for i := 0; i < len(more); i += 2 {
		o[more[i].(string)] = more[i+1]
	}
	return o
}

func TestRestore(t *testing.T) {
	t.Parallel()
	for _, password := range passwords() {
		d, h := backedUp(t, password)
		run := d.mustRequest(h, 0, "Restore", "Options", options("Password", password))
		if run.Files < 100 || run.Bytes == 0 || !run.Options.Reboot || slices.Contains(run.Steps, faults.StepCopy) {
			t.Errorf("%+v", run)
		}
		d.checkSame(h, password)
		next := d.mustRequest(h, 0, "Backup")
		if next.Full || next.Files != run.Files {
			t.Errorf("the next backup: %+v", next)
		}
		d.checkSame(h, password)
		d.noViolations()
	}
}

func TestRestoreOptions(t *testing.T) {
	t.Parallel()
	d, h := backedUp(t, "")
	before := d.Content()
	today, err := before.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	backup, err := devicefiles.OpenFolder(t.Context(), d.writeBackup(h), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	stored, err := backup.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	run := d.mustRequest(h, 0, "Restore", "Options", map[string]any{"RestoreSystemFiles": false, "RemoveItemsNotRestored": false, "RestoreShouldReboot": false})
	if run.Options.Reboot || !slices.Contains(run.Steps, faults.StepCopy) {
		t.Errorf("%+v", run)
	}
	if all, mine := len(h.files), len(h.below(d.Device().UDID)); all != 2*mine {
		t.Errorf("%d files in the backup and %d with its copy", mine, all)
	}
	now, err := d.Content().Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stayed, ofSystem := 0, 0
	for _, rec := range now.All() {
		i, inBackup := stored.ByFileID(rec.FileID)
		from, other := devicefiles.Source(backup), manifest.Record{}
		if system := devicefiles.System(rec.Domain); system || !inBackup {
			stayed++
			if system {
				ofSystem++
			}
			j, inToday := today.ByFileID(rec.FileID)
			if !inToday {
				t.Fatalf("%s/%s was neither in the backup nor on the device", rec.Domain, rec.RelativePath)
			}
			from, other = before, today.At(j)
		} else {
			other = stored.At(i)
		}
		if !devicefiles.SameMetadata(&rec, &other) {
			t.Errorf("%s/%s differs in metadata", rec.Domain, rec.RelativePath)
		}
		if rec.IsFile() {
			if same, err := devicefiles.SameBytes(t.Context(), d.Content(), &rec, from, &other); err != nil || !same {
				t.Errorf("%s/%s differs in content: %v", rec.Domain, rec.RelativePath, err)
			}
		}
	}
	for _, rec := range today.All() {
		if _, ok := now.ByFileID(rec.FileID); !ok {
			t.Errorf("%s/%s is missing", rec.Domain, rec.RelativePath)
		}
	}
	if stayed <= ofSystem || ofSystem == 0 {
		t.Errorf("%d files stayed, %d of them system files", stayed, ofSystem)
	}
	d.noViolations()
}

func TestRestoreRefused(t *testing.T) {
	spoil := func(name, text string) func(*device, *host) {
		return func(d *device, h *host) { h.mangle[d.Device().UDID+"/"+name] = text }
	}
	t.Parallel()
	cases := map[string]struct {
		password string
		spoil    func(*device, *host)
		options  map[string]any
		code     int64
		violates bool
	}{
		"wrong password":  {"secret", nil, options("Password", "wrong"), mberror.Password, false},
		"no password":     {"secret", nil, options(), mberror.Password, false},
		"no status":       {"", spoil("Status.plist", ""), options(), mberror.NoBackup, false},
		"no info":         {"", spoil("Info.plist", "<plist></plist>"), options(), mberror.Damaged, false},
		"newer iOS":       {"", spoil("Info.plist", `<plist version="1.0"><dict><key>Product Version</key><string>99.1</string></dict></plist>`), options(), mberror.Incompatible, false},
		"manifest damage": {"", spoil("Manifest.db", "SQLite format 3\x00junk"), options(), mberror.Damaged, false},
		"file missing":    {"", func(d *device, h *host) { delete(h.files, d.blobs(h, "")[9]) }, options(), mberror.Damaged, false},
		"other file":      {"", func(d *device, h *host) { h.files[d.blobs(h, "")[9]] = []byte("other") }, options(), mberror.Damaged, true},
	}
	for _, name := range chosen(t, cases) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cases[name]
			d, h := backedUp(t, c.password)
			if c.spoil != nil {
				c.spoil(d, h)
			}
			before := d.Content()
			d.mustRequest(h, c.code, "Restore", "Options", c.options)
			if d.Content() != before {
				t.Error("the content changed")
			}
			if got := len(d.Violations()) > 0; got != c.violates {
				t.Errorf("violations: %q", d.Violations())
			}
		})
	}
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	d, h := newDevice(t, Options{}), newHost(t)
	d.mustRequest(h, 0, "Backup")
	d.mustRequest(h, mberror.Password, "ChangePassword", "OldPassword", "guess", "NewPassword", "first")
	d.mustRequest(h, 0, "ChangePassword", "NewPassword", "first")
	if !d.WillEncrypt() {
		t.Error("encryption is not on")
	}
	full := d.mustRequest(h, 0, "Backup")
	if !full.Full {
		t.Errorf("after encryption was switched on: %+v", full)
	}
	d.checkSame(h, "first")
	d.mustRequest(h, mberror.Password, "ChangePassword", "OldPassword", "wrong", "NewPassword", "second")
	d.mustRequest(h, mberror.Password, "ChangePassword", "NewPassword", "second")
	d.mustRequest(h, 0, "ChangePassword", "OldPassword", "first", "NewPassword", "second")
	d.checkSame(h, "second") // the password change rewrapped the keybag on the host
	d.SetContent(d.nextDay())
	if next := d.mustRequest(h, 0, "Backup"); next.Full || next.Kept == 0 {
		t.Errorf("after the change: %+v", next)
	}
	d.checkSame(h, "second")
	d.mustRequest(h, 0, "ChangePassword", "OldPassword", "second")
	if off := d.mustRequest(h, 0, "Backup"); !off.Full || d.WillEncrypt() {
		t.Errorf("after encryption was switched off: %+v", off)
	}
	d.checkSame(h, "")
	d.noViolations()
}
