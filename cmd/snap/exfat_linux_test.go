package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// mountExFAT mounts an exFAT drive and returns its folder. It skips the test without root
// rights, FUSE or the programs for exFAT.
func mountExFAT(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting exFAT needs root")
	}
	needFUSE(t)
	drive := t.TempDir()
	mountExFATOn(t, drive)
	t.Cleanup(func() { unmount(t, drive) })
	return drive
}

// mountExFATOn mounts an exFAT drive, with exfat-fuse if the kernel lacks exFAT.
func mountExFATOn(t *testing.T, drive string) {
	t.Helper()
	disk := image(t, t.TempDir())
	must(t, "mkfs.exfat", disk)
	out, err := exec.Command("losetup", "--find", "--show", disk).CombinedOutput()
	if err != nil {
		t.Skipf("this machine has no loop devices: %v: %s", err, out)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", loop).Run() })
	if err := exec.Command("mount", "-t", "exfat", loop, drive).Run(); err != nil {
		must(t, "mount.exfat-fuse", loop, drive)
	}
}

// TestKillsOnExFAT does what TestKills does, on a drive that has no hard links, no
// permissions and no precise times.
func TestKillsOnExFAT(t *testing.T) {
	if testing.Short() {
		t.Skip("each kill takes ten seconds")
	}
	rounds := numberFrom(t, "SNAP_TEST_KILLS", amount(3, 1, 1))
	killRounds(t, mountExFAT(t), rounds)
}
