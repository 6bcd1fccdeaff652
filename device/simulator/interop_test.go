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

// mustPrint runs a program, which must succeed and print want.
func (r *rig) mustPrint(want string, name string, args ...string) {
	r.t.Helper()
	out, err := r.run(name, args...)
	if err != nil || out != want {
		r.t.Errorf("%s %v: %v, printed %q, want %q", name, args, err, out, want)
	}
}

// checkRun runs a program. Its output must contain want. If ok is set, the program must
// succeed; otherwise it must fail.
func (r *rig) checkRun(ok bool, want string, name string, args ...string) {
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
	r.mustPrint("", "idevice_id", "-l")
	a := NewDevice(Spec{UDID: udidA})
	r.Attach(a, USB)
	r.mustPrint(udidA, "idevice_id", "-l")
	r.mustPrint("", "idevice_id", "-n")
	b := NewDevice(Spec{UDID: udidB})
	r.Attach(b, Network)
	r.mustPrint(udidA, "idevice_id", "-l")
	r.mustPrint(udidB, "idevice_id", "-n")
	link := r.Attach(b, USB)
	r.mustPrint(udidA+"\n"+udidB, "idevice_id", "-l")
	link.Detach()
	r.Detach(a)
	r.mustPrint("", "idevice_id", "-l")
	r.mustPrint(udidB, "idevice_id", "-n")
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
			r.mustPrint(spec.Name, "ideviceinfo", "-k", "DeviceName")
			r.mustPrint("17.5.1", "ideviceinfo", "-u", spec.UDID, "-k", "ProductVersion")
			r.mustPrint("false", "ideviceinfo", "-q", DomainBackup, "-k", "WillEncrypt")
			d.SetValue(DomainBackup, "WillEncrypt", true)
			r.mustPrint("true", "ideviceinfo", "-q", DomainBackup, "-k", "WillEncrypt")
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
			r.mustPrint(spec.Name, "idevicename")
			r.checkRun(true, "", "idevicename", "new name ä")
			r.mustPrint("new name ä", "idevicename")
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
		t.Skip("idevicepair takes a second to make RSA keys; the test runs without -short")
	}
	r := newRig(t)
	d := NewDevice(Spec{UDID: udidA})
	r.Attach(d, USB)
	r.mustPrint("", "idevicepair", "list")
	d.SetLock(Locked)
	r.checkRun(false, "passcode", "idevicepair", "pair")
	d.SetLock(Unlocked)
	r.checkRun(false, "Please accept the trust dialog", "idevicepair", "pair")
	if !d.TrustDialog() {
		t.Error("no dialog")
	}
	d.AnswerTrust(true)
	r.checkRun(true, "SUCCESS: Paired with device "+udidA, "idevicepair", "pair")
	r.checkRun(true, "SUCCESS: Validated pairing", "idevicepair", "validate")
	r.mustPrint("Simulated iPhone", "idevicename")
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
	r.checkRun(false, "ERROR", "idevicepair", "validate")
	if err := r.SetPairRecord(udidA, record); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if err := d.hosts.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	r.checkRun(true, "SUCCESS: Unpaired", "idevicepair", "unpair")
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
	r.checkRun(true, "", "idevicenotificationproxy", "post", "org.example.hello")
	r.await(d, NotificationProxy, "post")
	r.noViolations(d)
}

// libimobiledevice connects directly to a device that is attached by network.
func TestInteropNetwork(t *testing.T) {
	r := newRig(t)
	d := NewDevice(Spec{UDID: udidA})
	if err := r.Trust(d); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("127.83.78.65")
	link, err := r.AttachNetwork(r.ctx, d, ip)
	if err != nil {
		t.Fatal(err)
	}
	r.mustPrint(udidA, "idevice_id", "-n")
	r.mustPrint("Simulated iPhone", "ideviceinfo", "-n", "-k", "DeviceName")
	r.checkRun(true, "", "idevicenotificationproxy", "-n", "post", "org.example.hello")
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
