package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mountExFAT mounts an exFAT drive, with exfat-fuse if the kernel lacks exFAT. It
// skips the test without root rights, loop devices or the programs for exFAT.
func mountExFAT(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting exFAT needs root")
	}
	must := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Skipf("%s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir := t.TempDir()
	image, drive := filepath.Join(dir, "image"), filepath.Join(dir, "drive")
	for _, err := range []error{os.WriteFile(image, nil, 0o600), os.Truncate(image, 128<<20), os.Mkdir(drive, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	must("mkfs.exfat", image)
	loop := must("losetup", "--find", "--show", image)
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", loop).Run() })
	if err := exec.Command("mount", "-t", "exfat", loop, drive).Run(); err != nil {
		must("mount.exfat-fuse", loop, drive)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", drive).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return drive
}

// TestKillsOnExFAT does what TestKills does, on a drive that has no hard links, no
// permissions and no precise times.
func TestKillsOnExFAT(t *testing.T) {
	if testing.Short() {
		t.Skip("each kill takes ten seconds")
	}
	rounds := numberFrom(t, "SNAP_TEST_KILLS", 3)
	killRounds(t, mountExFAT(t), rounds)
}
