package drill

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// TestInteropVerdicts restores what snap materializes with idevicebackup2, to a device
// that keeps what it gets. It succeeds if and only if the drill passes.
func TestInteropVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("complete restores by another program")
	}
	if _, err := exec.LookPath("idevicebackup2"); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal("idevicebackup2 (libimobiledevice-utils) is missing")
		}
		t.Skip("idevicebackup2 (libimobiledevice-utils) is missing")
	}
	// A device does not look into databases and property lists.
	seen := slices.DeleteFunc(slices.Clone(damages), func(d damage) bool { return d.kind == "database" || d.kind == "plist" })
	for _, i := range faultpoint.Sample(t, len(seen), 5) {
		d := seen[i]
		t.Run(d.name, func(t *testing.T) {
			f := newFolder(t, d.encrypted)
			content, err := devicefiles.OpenFolder(t.Context(), f.dir, []byte(f.password))
			f.check(err)
			defer content.Close()
			d.do(f)
			o := f.stored(memory.New())
			report, err := Device(t.Context(), *o)
			f.check(err)
			backups := t.TempDir()
			_, err = materialize.Write(t.Context(), o.Repo, o.Snapshot, backups, materialize.Options{Workers: 1})
			f.check(err)
			restored, out := restoreWithOther(t, content, backups, f.password)
			if restored != report.Passed() {
				t.Errorf("the drill says %v, idevicebackup2 %v: %+v\n%s", report.Passed(), restored, report.Findings, out)
			}
		})
	}
}

// restoreWithOther restores a backup with idevicebackup2 to a simulated device with
// this content, and reports whether that succeeded.
func restoreWithOther(t *testing.T, content devicefiles.Source, backups, password string) (ok bool, output string) {
	t.Helper()
	who := content.Device()
	phone := simulator.NewDevice(simulator.Spec{UDID: who.UDID, Name: who.Name, ProductType: who.ProductType, ProductVersion: who.ProductVersion,
		BuildVersion: who.BuildVersion, SerialNumber: who.SerialNumber})
	a, err := agent.Attach(phone, agent.Options{Content: content, StateDir: t.TempDir(), Patience: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mux") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	mux := simulator.New()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- mux.Serve(ctx, l) }()
	mux.Attach(phone, simulator.USB)
	if err := mux.Trust(phone); err != nil {
		t.Fatal(err)
	}
	args := []string{"-u", who.UDID, "restore", "--system", "--settings", "--remove"}
	if password != "" {
		args = append(args, "--password", password)
	}
	cmd := exec.CommandContext(ctx, "idevicebackup2", append(args, backups)...)
	cmd.Env = append(os.Environ(), "USBMUXD_SOCKET_ADDRESS="+simulator.Address(l.Addr()))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	run := a.LastRun()
	if err == nil && (run.Code != 0 || run.Files < 100) {
		t.Errorf("idevicebackup2 succeeded, and the device says %+v", run)
	}
	return err == nil, out.String()
}
