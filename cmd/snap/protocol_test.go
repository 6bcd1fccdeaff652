package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
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
)

// startLab makes devices with content and lets snap, and other programs that
// this process starts, find them.
func startLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	l := devicetest.NewLab(t, o)
	t.Setenv(device.AddressVariable, l.Address)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return l.Lab
}

// blameless wants the devices not to have suffered.
func blameless(t *testing.T, l *lab.Lab) {
	t.Helper()
	devicetest.NoViolations(t, l.Devices()...)
}

// holds wants a backup folder to have what is on a device.
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

// A process that is killed anywhere in a backup leaves all snapshots as they
// were, and nothing in the way. What was noted need not be sent again, which the
// device counts.
func TestKilledBackup(t *testing.T) {
	if testing.Short() {
		t.Skip("it stores 120 MB")
	}
	const (
		kills = 3
		// An encrypted backup keeps what it received without checkpoints.
		checkpoint = 2 << 20
		// underWay bounds what the device has sent and the process has not read:
		// it lies in the buffers of two sockets.
		underWay = 16 << 20
	)
	s := newShell(t)
	s.env = append(s.env, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
	l := startLab(t, lab.Options{Seed: 5, Devices: 2, Scale: synthetic.Small, Encrypt: synthetic.EncryptAlternate})
	guard, err := l.AddSpare(t.Context(), simulator.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	s.run(0, "backup", guard.UDID())
	before := filepath.Join(t.TempDir(), "before")
	s.run(0, "materialize", "latest", before)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, d := range l.Devices()[:2] {
		var sent int64
		spared := 0
		args := []string{"backup", d.UDID()}
		if !d.Agent.WillEncrypt() {
			args = append(args, "--checkpoint", fmt.Sprint(checkpoint))
		}
		for range kills {
			s.killBackup(d, 20<<20+rng.Int64N(4<<20), args...)
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
		whole := folderBytes(t, after)
		t.Logf("the device has %d bytes and sent %d in %d runs; %d files did not come again", whole, sent, kills+1, spared)
		if spared == 0 || sent > whole+kills*(checkpoint+underWay) {
			t.Errorf("too much came again: %+v", r)
		}
	}
	s.run(0, "check", "--read-data")
	again := filepath.Join(t.TempDir(), "again")
	s.run(0, "materialize", "latest:"+guard.UDID(), again)
	sameFolder(t, onlyChild(t, before), onlyChild(t, again))
	for _, d := range l.Devices() {
		for _, v := range d.Violations() {
			// The device finds that of every process that is killed.
			if v != "the connection was closed with the sync lock held" {
				t.Errorf("%s: %s", d.Name(), v)
			}
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
		s.t.Fatalf("it never came to the device: %s", out)
	}
	// The device notices, too; its account is complete then.
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

// waitFor waits until something is so.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
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

// hashes are the fingerprints of a folder's files without their times, which
// two programs cannot have the same.
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

// judge runs idevicebackup2, a program of other authors.
func judge(t *testing.T, d *lab.Device, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "idevicebackup2", append([]string{"-u", d.UDID()}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("idevicebackup2 %v: %v\n%s\n%+v", args, err, &out, d.Agent.LastRun())
	}
}

func needJudge(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("idevicebackup2"); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal("idevicebackup2 (libimobiledevice-utils) is missing")
		}
		t.Skip("idevicebackup2 (libimobiledevice-utils) is missing")
	}
}

// TestInteropFolder: what snap backs up and materializes is, byte for byte, the
// folder that idevicebackup2 writes of an equal device, but for Info.plist, which
// is the program's own. And idevicebackup2 restores from it.
func TestInteropFolder(t *testing.T) {
	needJudge(t)
	for _, encrypt := range []synthetic.Encryption{synthetic.EncryptNone, synthetic.EncryptAll} {
		t.Run(fmt.Sprint("encryption ", encrypt), func(t *testing.T) {
			s := newShell(t)
			s.env = append(s.env, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword)
			clock := func() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) }
			options := lab.Options{Seed: 11, Encrypt: encrypt, Clock: clock}
			theirs := startLab(t, options)
			theirAddress := os.Getenv(device.AddressVariable)
			ours := startLab(t, options)
			ourAddress := os.Getenv(device.AddressVariable)
			folders := t.TempDir()
			for day := range 3 {
				if day > 0 {
					for _, l := range []*lab.Lab{theirs, ours} {
						if err := l.NextDay(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
				t.Setenv(device.AddressVariable, theirAddress)
				judge(t, theirs.Devices()[0], "backup", folders)
				t.Setenv(device.AddressVariable, ourAddress)
				s.run(0, "backup")
				target := filepath.Join(t.TempDir(), "out")
				s.run(0, "materialize", "latest", target)
				want, got := hashes(t, onlyChild(t, folders)), hashes(t, onlyChild(t, target))
				for path, h := range want {
					// It leaves the folder Snapshot, which holds nothing, to the next run.
					if path != "Info.plist" && got[path] != h && !strings.HasPrefix(path, "Snapshot") {
						t.Errorf("day %d: %s is %q, and %q with idevicebackup2", day, path, got[path], h)
					}
				}
				for path := range got {
					if _, ok := want[path]; !ok {
						t.Errorf("day %d: %s is not there with idevicebackup2", day, path)
					}
				}
				if day < 2 {
					continue
				}
				// Back to the device, with their program.
				args := []string{"restore", "--system", "--settings", "--remove"}
				if encrypt != synthetic.EncryptNone {
					args = append(args, "--password", synthetic.DefaultPassword)
				}
				judge(t, ours.Devices()[0], append(args, target)...)
				holds(t, ours.Devices()[0], onlyChild(t, target))
			}
			blameless(t, ours)
			blameless(t, theirs)
		})
	}
}

// fillOn writes a file into a folder when a device comes to a step.
func fillOn(t *testing.T, step faults.Step, armed *atomic.Bool, fill func()) func(lab.Event) {
	t.Helper()
	return func(e lab.Event) {
		if e.What == lab.EventStep && e.Text == string(step) && armed.CompareAndSwap(true, false) {
			fill()
		}
	}
}
