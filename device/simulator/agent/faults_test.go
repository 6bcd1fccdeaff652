package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostile"
	"github.com/snap-backup/snap/device/simulator/manifestdb"
	"github.com/snap-backup/snap/device/simulator/mberror"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// chosen returns the names of the cases to run: all cases, or only some with -short.
func chosen[V any](t *testing.T, cases map[string]V) (names []string) {
	t.Helper()
	all := slices.Sorted(maps.Keys(cases))
	for _, i := range faultpoint.Choose(t, len(all), len(all)) {
		names = append(names, all[i])
	}
	return names
}

// passwords returns the backup passwords to test: the empty one and another, or with
// -short only one of them.
func passwords() []string {
	if testing.Short() {
		return []string{"secret"}
	}
	return []string{"", "secret"}
}

// TestFaults tests the effect of each fault, and that the next run succeeds.
func TestFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		code  int64 // error code of the response; -1 for no response
		check func(*testing.T, *device, *host, Run)
	}{
		"begin=fail 208":           {208, nil},
		"upload=fail 202":          {202, nil},
		"verify=fail 205":          {205, nil},
		"begin=wait 20ms":          {0, nil},
		"upload:2=ping":            {0, nil},
		"scan=unknown":             {0, nil},
		"response=bye":             {-1, nil},
		"moving=cut":               {-1, nil},
		"@200000=cut":              {-1, nil},
		"upload=huge 999999999999": {0, nil},
		"space=huge 9000000000000": {105, func(t *testing.T, _ *device, h *host, r Run) {
			if !h.purged {
				t.Error("the host was not asked to make room")
			}
		}},
		"upload=twice": {0, func(t *testing.T, d *device, h *host, r Run) {
			if r.Files != r.Moved-2+1 {
				t.Errorf("%+v", r)
			}
			d.checkSame(h, "")
		}},
		"upload=readerror": {0, func(t *testing.T, d *device, h *host, r Run) {
			if r.Failed != 1 || r.Files != r.Moved-2+1 {
				t.Errorf("%+v", r)
			}
			if next := d.mustRequest(h, 0, "Backup"); next.Files != 1 || next.Full {
				t.Errorf("the next run: %+v", next)
			}
		}},
	}
	for _, fault := range chosen(t, cases) {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			c := cases[fault]
			d, h := newDevice(t, Options{}), newHost(t)
			d.setScript(fault)
			if c.code < 0 {
				if r := d.mustBreak(h); r.Code != -1 || r.Err == "" {
					t.Errorf("%+v", r)
				}
			} else {
				run := d.mustRequest(h, c.code, "Backup")
				if c.check != nil {
					c.check(t, d, h, run)
				}
			}
			d.mustRequest(h, 0, "Backup")
			d.checkSame(h, "")
			d.noViolations()
		})
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	locked := true
	d, h := newDevice(t, Options{Locked: func() bool { return locked }}), newHost(t)
	d.mustRequest(h, mberror.Locked, "Backup")
	locked = false
	d.mustRequest(h, 0, "Backup")
	d.noViolations()
}

// TestCutEverywhere cuts runs after various numbers of bytes. The next run must
// complete the backup.
func TestCutEverywhere(t *testing.T) {
	t.Parallel()
	const step = 50_000
	d, h := newDevice(t, Options{}), newHost(t)
	d.mustRequest(h, 0, "Backup")
	steps := int(h.bytes.Load() / step)
	if steps < 20 {
		t.Fatalf("a backup transfers %d bytes", h.bytes.Load())
	}
	for _, i := range faultpoint.Choose(t, steps, 5) {
		after := int64(i)*step + 1
		d, h := newDevice(t, Options{}), newHost(t)
		if err := d.SetScript(faults.Script{{After: after, Do: faults.Cut}}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.send(h, d.request("Backup")); err == nil {
			t.Fatalf("a run was not cut after %d bytes", after)
		}
		d.mustRequest(h, 0, "Backup")
		d.checkSame(h, "")
		d.noViolations()
	}
}

// TestChangesMeanwhile changes the device's files during a backup.
func TestChangesMeanwhile(t *testing.T) {
	t.Parallel()
	for _, password := range passwords() {
		var d *device
		changed := false
		d = newDevice(t, Options{Password: password, OnStep: func(s faults.Step) {
			if s == faults.StepUpload && !changed {
				changed = true
				d.SetContent(d.nextDay())
			}
		}})
		h := newHost(t)
		run := d.mustRequest(h, 0, "Backup")
		if run.Rounds != 2 {
			t.Errorf("%+v", run)
		}
		d.checkSame(h, password)
		d.noViolations()
	}
}

// TestBadHosts tests that the agent notices what a host does wrong.
func TestBadHosts(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		spoil func(*device, *host)
		code  int64
		says  string
	}{
		"status other bytes":   {func(d *device, h *host) { h.mangle[d.ownPath("Status.plist")] = oldStatus }, mberror.Damaged, "Status.plist differs"},
		"manifest other bytes": {func(d *device, h *host) { h.mangle[d.ownPath("Manifest.plist")] = "x" }, mberror.Damaged, "Manifest.plist differs"},
		"database other bytes": {func(d *device, h *host) { h.mangle[d.ownPath("Manifest.db")] = "x" }, mberror.Damaged, "Manifest.db differs"},
		"not listed": {func(d *device, h *host) {
			records, _ := d.Content().Records(context.Background())
			for _, rec := range records.All() {
				if rec.IsFile() {
					h.hide[manifestdb.ID(rec.FileID)] = true
					return
				}
			}
		}, mberror.Damaged, "is not listed"},
		"upload refused": {func(_ *device, h *host) { h.status["DLMessageUploadFiles"] = devicelink.StatusNoSpace }, mberror.HostFull, ""},
		"mkdir refused":  {func(_ *device, h *host) { h.status["DLMessageCreateDirectory"] = devicelink.StatusFailed }, mberror.Link, ""},
		"mkdir exists":   {func(_ *device, h *host) { h.status["DLMessageCreateDirectory"] = devicelink.StatusExists }, 0, ""},
		"move refused":   {func(_ *device, h *host) { h.status["DLMessageMoveItems"] = devicelink.StatusNoFile }, mberror.NoFile, ""},
		"space unknown":  {func(_ *device, h *host) { h.status["DLMessageGetFreeDiskSpace"] = devicelink.StatusFailed }, 0, ""},
		"little space":   {func(_ *device, h *host) { h.free = 1000 }, mberror.HostFull, ""},
	}
	for _, name := range chosen(t, cases) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cases[name]
			d, h := newDevice(t, Options{}), newHost(t)
			if strings.HasSuffix(name, "other bytes") {
				// The host returns other bytes only when the device verifies the run.
				d.opts.OnStep = func(s faults.Step) {
					if s == faults.StepVerify {
						c.spoil(d, h)
					}
				}
			} else {
				c.spoil(d, h)
			}
			d.mustRequest(h, c.code, "Backup")
			found := strings.Join(d.Violations(), "\n")
			if c.says == "" && found != "" || !strings.Contains(found, c.says) {
				t.Errorf("violations: %s", found)
			}
		})
	}
}

// TestSilentHost tests that the agent gives up on a host that stops answering.
func TestSilentHost(t *testing.T) {
	t.Parallel()
	d := newDevice(t, Options{Patience: 50 * time.Millisecond})
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		l := devicelink.New(b, devicelink.Options{})
		if _, err := l.AcceptVersion(); err != nil {
			return
		}
		_ = l.WriteMessage(devicelink.ProcessMessage, d.request("Backup"))
		_, _ = b.Read(make([]byte, 3)) // the host reads 3 bytes and then stops
	}()
	if err := d.Serve(context.Background(), a); err == nil {
		t.Error("the agent reports no error")
	}

	ctx, cancel := context.WithCancel(context.Background())
	a, b = net.Pipe()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, a) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAttacks tests that a careful host survives every attack.
func TestAttacks(t *testing.T) {
	t.Parallel()
	names := hostile.Names()
	for _, want := range []string{"upload-dotdot", "move-to-absolute", "list-nul", "download-long", "message-bomb", "frame-huge", "endless-lists"} {
		if !slices.Contains(names, want) {
			t.Errorf("the attack %s is missing", want)
		}
	}
	d, h := newDevice(t, Options{}), newHost(t)
	d.mustRequest(h, 0, "Backup")
	before := maps.Clone(h.files)
	for _, i := range faultpoint.Choose(t, len(names), len(names)) {
		name := names[i]
		if testing.Short() && (strings.HasPrefix(name, "endless-") || hostile.Framing(name)) {
			continue
		}
		if err := d.SetScript(faults.Script{{At: faults.StepStatus, Do: faults.Attack, Name: name, Bytes: 200}, {At: faults.StepScan, Do: faults.Fail, Code: 202}}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err := d.send(h, d.request("Backup"))
		path := !hostile.Framing(name) && !strings.HasSuffix(name, "-long")
		if path && err != nil {
			t.Errorf("%s: the conversation ends with %v", name, err)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("%s took %v", name, took)
		}
		maps.DeleteFunc(h.files, func(p string, _ []byte) bool {
			return name == "endless-names" && strings.HasPrefix(p, d.ownPath("Snapshot/hostile-"))
		})
		if !maps.EqualFunc(h.files, before, bytes.Equal) {
			t.Errorf("%s changed something", name)
			h.files = maps.Clone(before)
		}
	}
	d.noViolations()
}

// TestAttackSucceeds tests that a host that accepts every path is reported.
func TestAttackSucceeds(t *testing.T) {
	t.Parallel()
	d, h := newDevice(t, Options{}), newHost(t)
	h.status["DLMessageCreateDirectory"] = 0
	d.setScript("scan=attack mkdir-dotdot")
	d.mustRequest(h, 0, "Backup")
	if v := d.Violations(); len(v) != 1 || !strings.Contains(v[0], "mkdir-dotdot") {
		t.Errorf("violations: %q", v)
	}
}

// TestSameSeed tests that equal options give equal bytes.
func TestSameSeed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("five backups")
	}
	var first map[string][]byte
	for range 2 {
		d, h := newDevice(t, Options{Password: "secret", Seed: 3}), newHost(t)
		d.mustRequest(h, 0, "Backup")
		d.SetContent(d.nextDay())
		d.mustRequest(h, 0, "Backup")
		if first == nil {
			first = h.files
		} else if !maps.EqualFunc(first, h.files, bytes.Equal) {
			t.Error("the second device sends other bytes")
		}
	}
	d, h := newDevice(t, Options{Password: "secret", Seed: 4}), newHost(t)
	d.mustRequest(h, 0, "Backup")
	if bytes.Equal(first[d.ownPath("Manifest.plist")], h.files[d.ownPath("Manifest.plist")]) {
		t.Error("another seed changes nothing")
	}
}

// FuzzHost sends arbitrary bytes to the agent. The agent must end the conversation
// without a panic.
func FuzzHost(f *testing.F) {
	message := func(v ...any) []byte {
		a, b := net.Pipe()
		go func() {
			_ = devicelink.New(a, devicelink.Options{}).WriteMessage(v...)
			a.Close()
		}()
		out, err := io.ReadAll(b)
		if err != nil {
			f.Fatal(err)
		}
		return out
	}
	dir, err := days()
	if err != nil {
		f.Fatal(err)
	}
	content, err := devicefiles.OpenFolder(context.Background(), dir+"/0", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { content.Close() })
	greeting := append(message(devicelink.VersionExchange, devicelink.VersionsOk, 300),
		message(devicelink.ProcessMessage, map[string]any{"MessageName": "Hello", "SupportedProtocolVersions": []any{2.1}})...)
	missing := append([]byte{0, 0, 0, 1, 'x', 0, 0, 0, 1, 6, 0, 0, 0, 0}, message(devicelink.StatusResponse, -13, "Multi status", map[string]any{})...)
	ok := message(devicelink.StatusResponse, 0, "", map[string]any{})
	for _, operation := range []string{"Backup", "Restore", "ChangePassword", "Info"} {
		request := message(devicelink.ProcessMessage, map[string]any{"MessageName": operation, "TargetIdentifier": content.Device().UDID, "NewPassword": "x"})
		f.Add(slices.Concat(greeting, request, missing, ok, ok))
		f.Add(slices.Concat(greeting, request, ok, message(devicelink.DisconnectName)))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, answers []byte) {
		agent, err := New(Options{Content: content, StateDir: t.TempDir(), Patience: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		go func() {
			_, _ = b.Write(answers)
			b.Close()
		}()
		_ = agent.Serve(context.Background(), a)
	})
}
