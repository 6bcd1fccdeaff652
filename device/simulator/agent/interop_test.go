package agent_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// bench is a simulated device behind a simulated usbmuxd, with a folder for the
// backups of idevicebackup2.
type bench struct {
	t       *testing.T
	agent   *agent.Agent
	device  *simulator.Device
	series  *synthetic.Series
	content string // folder of the device's content
	backups string // folder of the backups
	socket  string
}

func newBench(t *testing.T, o agent.Options) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: complete backups with idevicebackup2")
	}
	if _, err := exec.LookPath("idevicebackup2"); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal("idevicebackup2 (libimobiledevice-utils) is missing")
		}
		t.Skip("idevicebackup2 (libimobiledevice-utils) is missing")
	}
	b := &bench{t: t, content: t.TempDir(), backups: t.TempDir()}
	var err error
	if b.series, err = synthetic.New(synthetic.Config{Seed: 9, StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.series.Close() })
	o.Content, o.StateDir, o.Patience = b.nextDay(), t.TempDir(), 5*time.Minute
	who := o.Content.Device()
	b.device = simulator.NewDevice(simulator.Spec{UDID: who.UDID, Name: who.Name, ProductType: who.ProductType,
		ProductVersion: who.ProductVersion, BuildVersion: who.BuildVersion, SerialNumber: who.SerialNumber})
	if b.agent, err = agent.Attach(b.device, o); err != nil {
		t.Fatal(err)
	}
	b.serve()
	return b
}

// serve starts the simulated usbmuxd.
func (b *bench) serve() {
	dir, err := os.MkdirTemp("", "mux") // t.TempDir can be too long for a socket
	if err != nil {
		b.t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.socket = simulator.Address(l.Addr())
	s := simulator.New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	s.Attach(b.device, simulator.USB)
	if err := s.Trust(b.device); err != nil {
		b.t.Fatal(err)
	}
}

// nextDay returns the content of the next day.
func (b *bench) nextDay() devicefiles.Source {
	b.t.Helper()
	if err := b.series.Next(context.Background(), b.content); err != nil {
		b.t.Fatal(err)
	}
	f, err := devicefiles.OpenFolder(context.Background(), filepath.Join(b.content, b.series.Devices()[0].UDID), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return f
}

// run runs idevicebackup2 and fails the test unless its exit status is exit.
func (b *bench) run(exit int, args ...string) agent.Run {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "idevicebackup2", append([]string{"-u", b.agent.Device().UDID}, args...)...)
	cmd.Env = append(os.Environ(), "USBMUXD_SOCKET_ADDRESS="+b.socket)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exit {
		b.t.Fatalf("idevicebackup2 %s: exit %d (%v)\n%s\n%+v\n%q", strings.Join(args, " "), code, err, out.String(), b.agent.LastRun(), b.agent.Violations())
	}
	return b.agent.LastRun()
}

func (b *bench) folder() string { return filepath.Join(b.backups, b.agent.Device().UDID) }

// checkSame compares the backup in the folder with the content of the device.
func (b *bench) checkSame(password string) {
	b.t.Helper()
	differences, err := devicefiles.Verify(context.Background(), b.agent.Content(), b.folder(), []byte(password))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, text := range differences {
		b.t.Error(text)
	}
	for _, v := range b.device.Violations() { // the violations include the agent's
		b.t.Errorf("violation: %s", v)
	}
}

// TestInteropBackup makes backups with idevicebackup2.
func TestInteropBackup(t *testing.T) {
	for _, c := range []struct {
		name     string
		version  int64
		oldNames bool
	}{{"300", 300, true}, {"400", 400, false}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, agent.Options{Version: c.version, OldNames: c.oldNames})
			full := b.run(0, "backup", b.backups)
			if !full.Full || full.Files < 100 || full.Code != 0 {
				t.Errorf("first run: %+v", full)
			}
			b.checkSame("")
			b.agent.SetContent(b.nextDay())
			next := b.run(0, "backup", b.backups)
			if next.Full || next.Files == 0 || next.Files*2 > full.Files {
				t.Errorf("second run: %+v", next)
			}
			b.checkSame("")
		})
	}
}

// TestInteropEncryption switches encryption on, changes the password, and switches
// encryption off.
func TestInteropEncryption(t *testing.T) {
	b := newBench(t, agent.Options{})
	b.run(0, "encryption", "on", "first", b.backups)
	if !b.agent.WillEncrypt() {
		t.Fatal("encryption is not on")
	}
	if full := b.run(0, "backup", b.backups); !full.Full {
		t.Errorf("the first encrypted run: %+v", full)
	}
	b.checkSame("first")
	b.run(49, "changepw", "wrong", "second", b.backups)
	b.run(0, "changepw", "first", "second", b.backups)
	// idevicebackup2 does not return the old keybag, so the next run is a full one.
	if full := b.run(0, "backup", b.backups); !full.Full {
		t.Errorf("after the password change: %+v", full)
	}
	b.checkSame("second")
	b.run(0, "encryption", "off", "second", b.backups)
	if b.agent.WillEncrypt() {
		t.Fatal("encryption is not off")
	}
}

// TestInteropRestore restores yesterday's backup to the device.
func TestInteropRestore(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		b := newBench(t, agent.Options{Password: password})
		before := b.run(0, "backup", b.backups)
		args := []string{"restore", "--system", "--settings", "--remove", b.backups}
		if password != "" {
			args = []string{"restore", "--system", "--settings", "--remove", "--password", password, b.backups}
		}
		b.agent.SetContent(b.nextDay())
		restored := b.run(0, args...)
		if restored.Files != before.Files || restored.Applications < 0 {
			t.Errorf("restored: %+v, backed up before: %+v", restored, before)
		}
		b.checkSame(password) // the device has the content of the backup
		if next := b.run(0, "backup", b.backups); next.Files != restored.Files {
			t.Errorf("the backup after the restore has to send all files: %+v", next)
		}
		b.checkSame(password)
	}
}

// TestInteropFailures tests that idevicebackup2 gets the device's errors.
func TestInteropFailures(t *testing.T) {
	b := newBench(t, agent.Options{})
	for _, c := range []struct {
		fault string
		exit  int
	}{{"begin=fail 208", 48}, {"upload=fail 202", 54}} {
		f, err := faults.Parse(c.fault)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.agent.SetScript(faults.Script{f}); err != nil {
			t.Fatal(err)
		}
		b.run(c.exit, "backup", b.backups)
	}
	if run := b.run(0, "backup", b.backups); run.Code != 0 {
		t.Errorf("%+v", run)
	}
	b.checkSame("")
}
