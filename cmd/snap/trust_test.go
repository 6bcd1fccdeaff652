package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/lab"
)

// Every command describes each state of trust in words. With --json it gives the name
// of the state.
func TestTrustStates(t *testing.T) {
	l := devicetest.NewLab(t, lab.Options{PlainText: true})
	t.Setenv(device.AddressVariable, l.Address)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	d := l.Devices()[0]
	t.Setenv("SNAP_REPOSITORY", "")
	run := func(args ...string) (out string, code int) {
		var b strings.Builder
		a := &app{stdin: strings.NewReader(""), stdout: &b, stderr: &b, keyBits: 1024}
		code = a.run(context.Background(), args)
		return b.String(), code
	}
	for _, c := range []struct {
		state string // name of the state with --json
		begin func()
		words string // words for it that devices and device info print
		pair  string // output of device pair
		code  int    // exit code of device pair
	}{
		{"trusted", func() {}, "", "trusts this computer", exitOK},
		{"locked", func() { d.SetLock(simulator.NotYetUnlocked) }, "it is locked: unlock it", "it has not been unlocked since it was switched on", exitOK},
		{"locked", func() { d.Refuse(simulator.Lockdown, "PasswordProtected") }, "it is locked: unlock it", "it is locked: unlock it", exitUntrusted},
		{"dialog", func() { d.Refuse(simulator.Lockdown, "PairingDialogResponsePending") }, "it asks whether to trust this computer", "tap Trust, and enter its passcode", exitUntrusted},
		{"denied", func() { d.Refuse(simulator.Lockdown, "UserDeniedPairing"); d.SetTrust(simulator.TrustNever) },
			`the user chose "Don't Trust"`, "the user chose not to trust this computer", exitUntrusted},
		{"stale", func() { d.ForgetHosts() }, "it does not trust this computer any more", "tap Trust, and enter its passcode", exitUntrusted},
		{"managed", func() { d.Refuse(simulator.Lockdown, "MCProtected") }, "the organisation that manages it", "ask the organisation that manages the device", exitUntrusted},
		{"not-paired", func() { _ = l.Mux.SetPairRecord(d.UDID(), nil) }, "it does not trust this computer yet", "tap Trust, and enter its passcode", exitUntrusted},
	} {
		t.Run(c.state, func(t *testing.T) {
			if err := l.Mux.Trust(d.Device); err != nil {
				t.Fatal(err)
			}
			c.begin()
			defer func() {
				d.Refuse(simulator.Lockdown, "")
				d.SetTrust(simulator.TrustAsk)
				d.SetLock(simulator.Unlocked)
			}()
			out, code := run("devices")
			if code != exitOK || !strings.Contains(out, c.words) || !strings.Contains(out, " "+strings.ReplaceAll(c.state, "-", " ")+" ") {
				t.Errorf("devices: code %d: %s", code, out)
			}
			if out, code = run("device", "info"); code != exitOK || !strings.Contains(out, strings.ReplaceAll(c.state, "-", " ")+": "+c.words) {
				t.Errorf("info: code %d: %s", code, out)
			}
			var info device.Info
			out, code = run("device", "info", "--json")
			if err := json.Unmarshal([]byte(out), &info); err != nil || code != exitOK || string(info.Trust) != c.state {
				t.Errorf("info --json: code %d, %v: %s", code, err, out)
			}
			if out, code = run("device", "pair", "--wait", "1ms"); code != c.code || !strings.Contains(out, c.pair) {
				t.Errorf("pair: code %d, want %d and %q: %s", code, c.code, c.pair, out)
			}
			if strings.Contains(out, "context") || strings.Count(out, "Anna") > 2 {
				t.Errorf("the output mentions a context, or names the device more than twice: %s", out)
			}
		})
	}
}
