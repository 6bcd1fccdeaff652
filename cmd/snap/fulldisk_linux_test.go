package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"golang.org/x/sys/unix"
)

// The repository's disk becomes full during a backup. snap says so, snapshots stay
// as they are, and the next backup continues once there is room.
func TestBackupOnFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("it stores 30 MB")
	}
	t.Parallel()
	disk := smallDisk(t, "200m")
	if disk == "" {
		return
	}
	s := newShell(t, filepath.Join(disk, "repo"))
	s.run(0, "init")
	filler := filepath.Join(disk, "filler")
	var armed atomic.Bool
	armed.Store(true)
	l := s.lab(lab.Options{Scale: synthetic.Demo, Seed: 3, On: fillOn(t, faults.StepUpload, &armed, func() {
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-(8<<20)), 0o600); err != nil {
			t.Error(err)
		}
	})})
	d := l.Devices()[0]
	out := s.run(exitNoSpace, "backup")
	if !strings.Contains(out, "free some space and run the same command again") {
		t.Errorf("it says %s", out)
	}
	if n := len(s.stored()); n != 0 {
		t.Errorf("%d snapshots", n)
	}
	// The disk is full to its last byte before the next backup begins.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	empty := fillUp(t, disk, 0)
	if out := s.run(exitNoSpace, "backup"); !strings.Contains(out, "free some space") {
		t.Errorf("it says %s", out)
	}
	empty()
	s.run(0, "check", "--read-data")
	s.run(0, "backup")
	s.run(0, "check", "--read-data")
	target := filepath.Join(t.TempDir(), "out")
	s.run(0, "materialize", "latest", target)
	holds(t, d, onlyChild(t, target))
	noViolations(t, l)
}

// A backup during which the disk of the repository or of the spool becomes full to its
// last byte changes no snapshot, and the next backup succeeds.
func TestFullDisks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it makes seven backups")
	}
	type disk struct {
		name    string
		encrypt synthetic.Encryption
		spool   bool // the spool's disk becomes full, not the repository's
	}
	disks := []disk{{"repository", synthetic.EncryptNone, false}, {"repository, encrypted", synthetic.EncryptAll, false}, {"spool", synthetic.EncryptAll, true}}
	if os.Getenv("SNAP_TEST_BREAKS") == "" && !faultpoint.All() {
		i := faultpoint.Rand(t).IntN(len(disks))
		disks = disks[i : i+1]
	}
	for _, test := range disks {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			disk := t.TempDir()
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256m"); err != nil {
				t.Skipf("mounting a small disk needs root: %v", err)
			}
			defer func() {
				if err := unix.Unmount(disk, 0); err != nil {
					t.Error(err)
				}
			}()
			s := newShell(t, filepath.Join(disk, "repo"))
			if test.spool {
				s.repo = filepath.Join(t.TempDir(), "repo")
			}
			s.run(0, "init")
			b := newBreaks(t, s, test.encrypt)
			if test.spool {
				b.spool = filepath.Join(disk, "spool")
			}
			filler := filepath.Join(disk, "filler")
			b.fill = func() {
				f, err := os.Create(filler)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for _, size := range []int{1 << 20, 4 << 10} {
					for err = nil; err == nil; {
						_, err = f.Write(make([]byte, size))
					}
				}
			}
			b.free = func() { _ = os.Remove(filler) }
			var list []breakage
			for _, step := range stepsToFill(t, test.spool) {
				list = append(list, breakage{how: "full", step: step})
			}
			b.playAll(list, 0, nil)
		})
	}
}

// stepsToFill returns the steps at which the disk becomes full: a random one, or
// all with SNAP_TEST_BREAKS or SNAP_TEST_ALL.
func stepsToFill(t *testing.T, spool bool) []faults.Step {
	t.Helper()
	steps := backupSteps
	if spool {
		steps = steps[:len(steps)-1] // the spool is gone at the last step
	}
	if os.Getenv("SNAP_TEST_BREAKS") != "" || faultpoint.All() {
		return steps
	}
	i := faultpoint.Rand(t).IntN(len(steps))
	return steps[i : i+1]
}

// smallDisk mounts an empty disk and returns its folder. Without root it runs the
// complete test in a process with its own namespace, and returns "". It skips the
// test only if the kernel forbids that, too. .ci/run fails if a test of a full disk is
// skipped although the kernel allows mounting.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		inNamespace(t)
		return ""
	}
	disk := t.TempDir()
	switch err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+size); {
	case errors.Is(err, unix.EPERM):
		t.Skipf("this machine does not allow mounting a small disk: %v", err)
	case err != nil:
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// inNamespace runs the complete test in a new process that may mount disks.
func inNamespace(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short()))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("this machine allows only root to mount a small disk: %v", err)
	case err != nil:
		t.Fatalf("in a namespace: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("in a namespace: %s", out)
	}
}
