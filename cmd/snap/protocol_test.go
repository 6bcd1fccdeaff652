package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// noViolations checks that a real device would have accepted everything that snap
// did.
func noViolations(t *testing.T, l *lab.Lab) {
	t.Helper()
	devicetest.NoViolations(t, l.Devices()...)
}

// holds checks that a backup folder has the content of a device.
func holds(t *testing.T, d *lab.Device, folder string) {
	t.Helper()
	differences, err := devicefiles.Verify(t.Context(), d.Agent.Content(), folder, []byte(synthetic.DefaultPassword))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range differences {
		t.Error(text)
	}
}

// A backup that is killed at any moment changes no snapshot and blocks nothing. Files
// that a checkpoint has are not sent again.
func TestKilledBackup(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it stores 30 MB")
	}
	for _, encrypt := range encryptions(t) {
		t.Run(fmt.Sprint("encryption ", encrypt), func(t *testing.T) {
			t.Parallel()
			killBackups(t, encrypt)
		})
	}
}

func killBackups(t *testing.T, encrypt synthetic.Encryption) {
	t.Helper()
	const (
		checkpoint = 1 << 20
		// underWay bounds the bytes that the device has sent but the process has not
		// read. They are in the buffers of two sockets.
		underWay = 16 << 20
	)
	// A device of 30 MB sends too few bytes to show that a checkpoint saves any. With
	// SNAP_TEST_ALL the device is larger.
	scale, cut := synthetic.Demo, int64(10<<20)
	if faultpoint.All() {
		scale, cut = synthetic.Small, 20<<20
	}
	s := newRepo(t, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
	l := s.lab(lab.Options{Seed: 5, Scale: scale, Encrypt: encrypt})
	d := l.Devices()[0]
	guard, err := l.AddSpare(t.Context(), simulator.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	s.run(0, "backup", guard.UDID())
	before := filepath.Join(t.TempDir(), "before")
	s.run(0, "materialize", "latest", before)

	kills, rng := int64(amount(3, 1, 1)), faultpoint.Rand(t)
	args := []string{"backup", d.UDID()}
	if encrypt == synthetic.EncryptNone { // an encrypted backup needs no checkpoints
		args = append(args, "--checkpoint", fmt.Sprint(checkpoint))
	}
	var sent int64
	spared := 0
	for range kills {
		s.killBackup(d, cut+rng.Int64N(4<<20), args...)
		r := d.Agent.LastRun()
		sent, spared = sent+r.Bytes, max(spared, r.Spared)
	}
	s.run(0, "check", "--read-data")
	s.run(0, "backup", d.UDID())
	r := d.Agent.LastRun()
	sent, spared = sent+r.Bytes, max(spared, r.Spared)
	after := filepath.Join(t.TempDir(), "after")
	s.run(0, "materialize", "latest:"+d.UDID(), after)
	holds(t, d, onlyChild(t, after))
	size := folderBytes(t, after)
	t.Logf("the device has %d bytes and sent %d in %d runs; %d files were not sent again", size, sent, kills+1, spared)
	if spared == 0 || sent > size+kills*(checkpoint+underWay) {
		t.Errorf("too much was sent again: %+v", r)
	}
	s.run(0, "check", "--read-data")
	again := filepath.Join(t.TempDir(), "again")
	s.run(0, "materialize", "latest:"+guard.UDID(), again)
	sameFolder(t, onlyChild(t, before), onlyChild(t, again))
	for _, v := range d.Violations() {
		// A device reports this whenever a process is killed.
		if v != "the connection was closed with the sync lock held" {
			t.Errorf("%s: %s", d.Name(), v)
		}
	}
}

// killBackup kills a backup once the device has sent some bytes.
func (s *shell) killBackup(d *lab.Device, at int64, args ...string) {
	s.t.Helper()
	cmd, out := s.command(args...)
	runs := len(d.Agent.Runs())
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	waitFor(s.t, func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		list := d.Agent.Runs()
		return len(list) > runs && list[len(list)-1].Bytes >= at
	})
	_ = cmd.Process.Kill()
	<-ended
	if len(d.Agent.Runs()) == runs {
		s.t.Fatalf("it never reached the device: %s", out)
	}
	// The device's record of the run is complete once the device has noticed the
	// kill, too.
	waitFor(s.t, func() bool { r := d.Agent.LastRun(); return r.Err != "" || r.Code >= 0 })
}

func folderBytes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		sum += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func sameFolder(t *testing.T, a, b string, except ...string) {
	t.Helper()
	want, err := fingerprint(a)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fingerprint(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range except {
		delete(want, name)
		delete(got, name)
	}
	if err := want.compare(got); err != nil {
		t.Errorf("%s and %s: %v", a, b, err)
	}
}

// hashes returns the fingerprints of a folder's files without their times, which
// differ between two programs.
func hashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	f, err := fingerprint(dir)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range f {
		words := strings.Fields(text)
		all[path] = strings.Join(slices.Delete(words, 1, 2), " ")
	}
	return all
}

// runIdevicebackup2 runs the backup program of libimobiledevice.
func runIdevicebackup2(t *testing.T, address string, d *lab.Device, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "idevicebackup2", append([]string{"-u", d.UDID()}, args...)...)
	cmd.Env = append(os.Environ(), device.AddressVariable+"="+address)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("idevicebackup2 %v: %v\n%s\n%+v", args, err, &out, d.Agent.LastRun())
	}
}

func needIdevicebackup2(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("idevicebackup2"); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal("idevicebackup2 (libimobiledevice-utils) is missing")
		}
		t.Skip("idevicebackup2 (libimobiledevice-utils) is missing")
	}
}

// A folder that snap materializes equals, byte for byte, the folder that
// idevicebackup2 writes for an equal device. Only Info.plist differs, because it
// depends on the program. idevicebackup2 can restore from snap's folder.
func TestInteropFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("it backs up with two programs for three days; the test runs without -short")
	}
	needIdevicebackup2(t)
	t.Parallel()
	for _, encrypt := range encryptions(t) {
		t.Run(fmt.Sprint("encryption ", encrypt), func(t *testing.T) {
			s := newRepo(t, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
			clock := func() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) }
			options := lab.Options{Seed: 11, Encrypt: encrypt, Clock: clock}
			theirs, ours := devicetest.NewLab(t, options), devicetest.NewLab(t, options)
			s.env = append(s.env, device.AddressVariable+"="+ours.Address)
			folders := t.TempDir()
			for day := range 3 {
				if day > 0 {
					for _, l := range []*devicetest.Lab{theirs, ours} {
						if err := l.NextDay(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
				runIdevicebackup2(t, theirs.Address, theirs.Devices()[0], "backup", folders)
				s.run(0, "backup")
				target := filepath.Join(t.TempDir(), "out")
				s.run(0, "materialize", "latest", target)
				want, got := hashes(t, onlyChild(t, folders)), hashes(t, onlyChild(t, target))
				for path, h := range want {
					// idevicebackup2 leaves the empty folder Snapshot behind.
					if path != "Info.plist" && got[path] != h && !strings.HasPrefix(path, "Snapshot") {
						t.Errorf("day %d: %s is %q, idevicebackup2 has %q", day, path, got[path], h)
					}
				}
				for path := range got {
					if _, ok := want[path]; !ok {
						t.Errorf("day %d: idevicebackup2 does not write %s", day, path)
					}
				}
				if day < 2 {
					continue
				}
				// Restore with the other program.
				args := []string{"restore", "--system", "--settings", "--remove"}
				if encrypt != synthetic.EncryptNone {
					args = append(args, "--password", synthetic.DefaultPassword)
				}
				runIdevicebackup2(t, ours.Address, ours.Devices()[0], append(args, target)...)
				holds(t, ours.Devices()[0], onlyChild(t, target))
			}
			noViolations(t, ours.Lab)
			noViolations(t, theirs.Lab)
		})
	}
}

// fillOn returns an observer that calls fill once, when a device reaches a step.
func fillOn(t *testing.T, step faults.Step, armed *atomic.Bool, fill func()) func(lab.Event) {
	t.Helper()
	return func(e lab.Event) {
		if e.What == lab.EventStep && e.Text == string(step) && armed.CompareAndSwap(true, false) {
			fill()
		}
	}
}
