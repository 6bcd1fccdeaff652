package simulator

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// run runs a program of libimobiledevice-utils and returns its output. The program
// finds the simulator through its environment.
func (r *rig) run(name string, args ...string) (string, error) {
	r.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			r.t.Fatalf("%s is missing", name)
		}
		r.t.Skipf("%s is missing", name)
	}
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// prints runs a program, which must succeed and print want.
func (r *rig) prints(want string, name string, args ...string) {
	r.t.Helper()
	out, err := r.run(name, args...)
	if err != nil || out != want {
		r.t.Errorf("%s %v: %v, printed %q, want %q", name, args, err, out, want)
	}
}

// says runs a program. Its output must contain want. If ok is set, the program must
// succeed; otherwise it must fail.
func (r *rig) says(ok bool, want string, name string, args ...string) {
	r.t.Helper()
	out, err := r.run(name, args...)
	if (err == nil) != ok || !strings.Contains(out, want) {
		r.t.Errorf("%s %v: %v, printed %q, want %q", name, args, err, out, want)
	}
}

const (
	udidA = "00008030-000000000000A11A"
	udidB = "0123456789abcdef0123456789abcdef01234567" // the form of UDID that older devices have
)

func TestInteropList(t *testing.T) {
	r := newRig(t)
	r.prints("", "idevice_id", "-l")
	a := NewDevice(Spec{UDID: udidA})
	r.Attach(a, USB)
	r.prints(udidA, "idevice_id", "-l")
	r.prints("", "idevice_id", "-n")
	b := NewDevice(Spec{UDID: udidB})
	r.Attach(b, Network)
	r.prints(udidA, "idevice_id", "-l")
	r.prints(udidB, "idevice_id", "-n")
	link := r.Attach(b, USB)
	r.prints(udidA+"\n"+udidB, "idevice_id", "-l")
	link.Detach()
	r.Detach(a)
	r.prints("", "idevice_id", "-l")
	r.prints(udidB, "idevice_id", "-n")
}

func TestInteropInfo(t *testing.T) {
	for name, spec := range map[string]Spec{
		"TLS":    {UDID: udidA, Name: "größer 📱"},
		"dashes": {UDID: udidB, Name: "old"},
		"plain":  {UDID: udidA, Name: "plain", PlainText: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.device(spec)
			r.prints(spec.Name, "ideviceinfo", "-k", "DeviceName")
			r.prints("17.5.1", "ideviceinfo", "-u", spec.UDID, "-k", "ProductVersion")
			r.prints("false", "ideviceinfo", "-q", DomainBackup, "-k", "WillEncrypt")
			d.SetValue(DomainBackup, "WillEncrypt", true)
			r.prints("true", "ideviceinfo", "-q", DomainBackup, "-k", "WillEncrypt")
			out, err := r.run("ideviceinfo", "-q", DomainDiskUsage)
			if err != nil || !slices.Contains(strings.Split(out, "\n"), "TotalDataCapacity: 128000000000") {
				t.Errorf("disk usage: %v %s", err, out)
			}
			out, err = r.run("ideviceinfo")
			for _, line := range []string{"UniqueDeviceID: " + spec.UDID, "SerialNumber: " + d.text("", "SerialNumber"), "DeviceClass: iPhone"} {
				if err != nil || !slices.Contains(strings.Split(out, "\n"), line) {
					t.Errorf("%s is missing: %v %s", line, err, out)
				}
			}
			// Without a session, a program gets only public values.
			out, err = r.run("ideviceinfo", "-s")
			if err != nil || !strings.Contains(out, "ProductType: ") || strings.Contains(out, "SerialNumber: ") {
				t.Errorf("simple: %v %s", err, out)
			}
			r.prints(spec.Name, "idevicename")
			r.says(true, "", "idevicename", "new name ä")
			r.prints("new name ä", "idevicename")
			if d.Name() != "new name ä" {
				t.Errorf("the device is called %q", d.Name())
			}
			r.noViolations(d)
		})
	}
}

// A program pairs with a new device, uses it, and unpairs. It creates two keys at each
// attempt, which takes time.
func TestInteropPair(t *testing.T) {
	if testing.Short() {
		t.Skip("idevicepair makes RSA keys for a second; the default run tries it")
	}
	r := newRig(t)
	d := NewDevice(Spec{UDID: udidA, Key: testKey(t)})
	r.Attach(d, USB)
	r.prints("", "idevicepair", "list")
	d.SetLock(Locked)
	r.says(false, "passcode", "idevicepair", "pair")
	d.SetLock(Unlocked)
	r.says(false, "Please accept the trust dialog", "idevicepair", "pair")
	if !d.TrustDialog() {
		t.Error("no dialog")
	}
	d.AnswerTrust(true)
	r.says(true, "SUCCESS: Paired with device "+udidA, "idevicepair", "pair")
	r.says(true, "SUCCESS: Validated pairing", "idevicepair", "validate")
	r.prints("Simulated iPhone", "idevicename")
	// go-ios can use the pair record that libimobiledevice made.
	if v, err := values(r.entry(udidA)); err != nil || v["UniqueDeviceID"] != udidA {
		t.Errorf("with the record of another program: %v %v", v["UniqueDeviceID"], err)
	}
	r.noViolations(d)
	record, ok := r.PairRecord(udidA)
	if !ok {
		t.Fatal("no pair record")
	}
	hosts := d.hosts.All()
	d.ForgetHosts()
	d.SetTrust(TrustNever)
	r.says(false, "ERROR", "idevicepair", "validate")
	if err := r.SetPairRecord(udidA, record); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if err := d.hosts.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	r.says(true, "SUCCESS: Unpaired", "idevicepair", "unpair")
	if _, ok := r.PairRecord(udidA); ok {
		t.Error("the pair record still exists")
	}
	left := len(d.hosts.All())
	if left != 0 {
		t.Errorf("the device trusts %d hosts", left)
	}
	r.noViolations(d)
}

func TestInteropNotifications(t *testing.T) {
	r := newRig(t)
	d := r.device(Spec{UDID: udidA})
	r.says(true, "", "idevicenotificationproxy", "post", "org.example.hello")
	r.await(d, NotificationProxy, "post")
	r.noViolations(d)
}

// libimobiledevice connects directly to a device that is attached by network.
func TestInteropNetwork(t *testing.T) {
	r := newRig(t)
	d := NewDevice(Spec{UDID: udidA, Key: testKey(t)})
	if err := r.Trust(d); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("127.83.78.65")
	link, err := r.AttachNetwork(r.ctx, d, ip)
	if err != nil {
		t.Fatal(err)
	}
	r.prints(udidA, "idevice_id", "-n")
	r.prints("Simulated iPhone", "ideviceinfo", "-n", "-k", "DeviceName")
	r.says(true, "", "idevicenotificationproxy", "-n", "post", "org.example.hello")
	r.await(d, NotificationProxy, "post")
	// go-ios reaches the device through usbmuxd instead.
	if v, err := values(r.entry(udidA)); err != nil || v["UniqueDeviceID"] != udidA {
		t.Errorf("through the mux: %v %v", v["UniqueDeviceID"], err)
	}
	r.noViolations(d)
	link.Detach()
	// The operating system may take a while to close the port.
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", ip.String()+":62078")
		if err != nil {
			break
		}
		c.Close()
		if time.Since(begin) > 2*time.Minute {
			t.Fatal("a detached device still listens")
		}
	}
}
