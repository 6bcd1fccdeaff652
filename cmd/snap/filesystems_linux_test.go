package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"golang.org/x/sys/unix"
)

// drives are file systems that differ from a local disk, and how to mount them. dir is
// an empty folder for what they need; they are mounted on the folder drive.
var drives = []struct {
	name  string
	mount func(t *testing.T, dir, drive string)
}{
	{"exFAT", func(t *testing.T, _, drive string) { mountExFATOn(t, drive) }},
	{"FAT", func(t *testing.T, dir, drive string) {
		must(t, "mkfs.vfat", "-F", "32", image(t, dir))
		must(t, "fusefat", "-s", "-o", "rw+", image(t, dir), drive)
	}},
	{"NTFS", func(t *testing.T, dir, drive string) {
		must(t, "mkfs.ntfs", "-F", "-q", "-f", image(t, dir))
		must(t, "ntfs-3g", image(t, dir), drive)
	}},
	{"tmpfs", func(t *testing.T, _, drive string) { must(t, "mount", "-t", "tmpfs", "none", drive) }},
	{"overlay", func(t *testing.T, dir, drive string) {
		must(t, "mount", "-t", "overlay", "none", "-o", layers(t, dir), drive)
	}},
	{"FUSE overlay", func(t *testing.T, dir, drive string) { must(t, "fuse-overlayfs", "-o", layers(t, dir), drive) }},
	{"bindfs", func(t *testing.T, dir, drive string) { must(t, "bindfs", dir, drive) }},
	{"SFTP", func(t *testing.T, dir, drive string) {
		ssh := filepath.Join(t.TempDir(), "ssh") // sshfs calls the server itself
		write(t, ssh, "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n")
		must(t, "sshfs", "-o", "ssh_command="+ssh, "none:"+dir, drive)
	}},
	{"gocryptfs", func(t *testing.T, dir, drive string) {
		secret := filepath.Join(t.TempDir(), "secret")
		write(t, secret, "sesame\n")
		must(t, "gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", secret, dir)
		must(t, "gocryptfs", "-q", "-passfile", secret, dir, drive)
	}},
	{"Samba", mountSamba},
}

// TestFileSystems does everything on file systems without modes, owners, links, exact
// times or fsync. Without SNAP_TEST_ALL it tries one of them.
func TestFileSystems(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it mounts a drive and runs 20 commands")
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	needFUSE(t)
	some := drives
	if !faultpoint.All() {
		i := faultpoint.Rand(t).IntN(len(drives))
		some = drives[i : i+1]
	}
	for _, d := range some {
		t.Run(d.name, func(t *testing.T) {
			drive, dir := t.TempDir(), t.TempDir()
			d.mount(t, dir, drive)
			t.Cleanup(func() { unmount(t, drive) })
			if d.name == "Samba" {
				onDrive(t, filepath.Join(drive, sambaAddress, "share"))
				return
			}
			onDrive(t, drive)
		})
	}
}

// needFUSE skips the test if the kernel does not allow FUSE.
func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine does not allow FUSE: %v", err)
	}
	_ = f.Close()
}

// onDrive makes a repository, its mirror and its copy on a drive, and gives back
// snapshots there.
func onDrive(t *testing.T, drive string) {
	t.Helper()
	s := newShell(t, filepath.Join(drive, "repo"), "SNAP_TO_PASSWORD=sesame")
	backups := t.TempDir()
	for day := 1; day <= 2; day++ {
		s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "1", "--days", fmt.Sprint(day), filepath.Join(backups, fmt.Sprint(day)))
	}
	want := contentOf(t, onlyChild(t, filepath.Join(backups, "2")))
	mirrored, copied := filepath.Join(drive, "mirror"), filepath.Join(drive, "copy")
	s.run(0, "init", "--parity", "10%")
	s.run(0, "import", filepath.Join(backups, "1"))
	s.run(0, "import", filepath.Join(backups, "2"))
	s.run(0, "check", "--read-data")
	s.run(0, "mirror", mirrored)
	s.run(0, "forget", "--keep-last", "1")
	s.run(0, "prune")
	s.run(0, "mirror", mirrored)
	s.run(0, "mirror", "--check", mirrored)
	s.run(0, "-r", copied, "init")
	s.run(0, "copy", "--to", copied)
	s.run(0, "-r", copied, "check", "--read-data")

	target := filepath.Join(drive, "out")
	if !keepsFolders(t, drive) {
		if out := s.run(exitError, "materialize", "latest", target); !strings.Contains(out, "this file system loses them") {
			t.Errorf("materialize says %s", out)
		}
		replaced := filepath.Join(drive, "replaced", filepath.Base(onlyChild(t, filepath.Join(backups, "2"))))
		if err := os.MkdirAll(replaced, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(replaced, "kept"), "x")
		s.run(exitError, "materialize", "--replace", "latest", filepath.Dir(replaced))
		if !exists(filepath.Join(replaced, "kept")) {
			t.Error("the folder that was to be replaced is lost")
		}
		return
	}
	s.run(0, "materialize", "--verify", "latest", target)
	if got := contentOf(t, onlyChild(t, target)); !maps.Equal(got, want) {
		t.Error("the folder on the drive differs from the backup")
	}
	s.run(0, "materialize", "--replace", "latest", target)
	s.run(0, "drill", "--to", filepath.Join(drive, "drill"))
	s.run(0, "import", target)
	// Two processes at the same time.
	done := make(chan error)
	for day := 1; day <= 2; day++ {
		go func() { done <- s.try("import", filepath.Join(backups, fmt.Sprint(day))) }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.run(0, "check", "--read-data")
}

// keepsFolders reports whether a folder has its content after it was renamed. A
// version of fusefat loses it.
func keepsFolders(t *testing.T, drive string) bool {
	t.Helper()
	from, to := filepath.Join(drive, "before"), filepath.Join(drive, "after")
	if err := os.Mkdir(from, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "file"), "x")
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	return exists(filepath.Join(to, "file"))
}

// must runs a program. If it is missing, the test is skipped, unless SNAP_TEST_INTEROP is
// set.
func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil && os.Getenv("SNAP_TEST_INTEROP") == "" {
		t.Skip(err)
	}
	// A file, since the output of a program that goes on in the background never ends.
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "HOME="+os.TempDir())
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, text)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// image returns the file of a small disk.
func image(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "image")
	if !exists(name) {
		write(t, name, "")
	}
	if err := os.Truncate(name, 128<<20); err != nil {
		t.Fatal(err)
	}
	return name
}

// layers returns the options of an overlay.
func layers(t *testing.T, dir string) string {
	t.Helper()
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
}

// unmount waits until the last process has left the drive.
func unmount(t *testing.T, drive string) {
	t.Helper()
	var err error
	for range 50 {
		if err = unix.Unmount(drive, 0); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("unmount: %v", err)
	_ = unix.Unmount(drive, unix.MNT_DETACH)
}

// sambaAddress is the address of the test's file server. It is of this machine, and
// hardly anybody else uses it.
const sambaAddress = "127.83.77.66"

// mountSamba starts a file server and mounts its share by FUSE. Few kernels in containers
// have cifs.
func mountSamba(t *testing.T, dir, drive string) {
	t.Helper()
	home := t.TempDir()
	conf := fmt.Sprintf(`[global]
server role = standalone server
map to guest = Bad User
guest account = root
private dir = %[1]s
lock directory = %[1]s
state directory = %[1]s
cache directory = %[1]s
pid directory = %[1]s
ncalrpc dir = %[1]s/rpc
log file = %[1]s/log
interfaces = %[2]s/8
bind interfaces only = yes
smb ports = 445
disable netbios = yes
load printers = no
disable spoolss = yes
[share]
path = %[3]s
guest ok = yes
read only = no
force user = root
`, home, sambaAddress, dir)
	smb := filepath.Join(home, ".smb")
	if err := os.Mkdir(smb, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(smb, "smb.conf"), conf)
	write(t, filepath.Join(smb, "smbnetfs.conf"), "")
	if _, err := exec.LookPath("smbd"); err != nil && os.Getenv("SNAP_TEST_INTEROP") == "" {
		t.Skip(err)
	}
	server := exec.Command("smbd", "--foreground", "--no-process-group", "-s", filepath.Join(smb, "smb.conf"))
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children have the same group
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-server.Process.Pid, unix.SIGKILL)
		_ = server.Wait()
	})
	must(t, "env", "HOME="+home, "smbnetfs", drive)
	share := filepath.Join(drive, sambaAddress, "share")
	waitFor(t, func() bool { return os.Mkdir(filepath.Join(share, "ready"), 0o700) == nil })
}
