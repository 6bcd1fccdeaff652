//go:build unix

package sftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
)

// sshd is a server of a test.
type sshd struct {
	dir  string
	port int
	cmd  *exec.Cmd
}

// startSSHD starts an SSH server on a free port of this computer. If OpenSSH is missing,
// the test is skipped, unless SNAP_TEST_INTEROP is set.
func startSSHD(t *testing.T) *sshd {
	t.Helper()
	const program = "/usr/sbin/sshd" // it wants its full path
	for _, name := range []string{program, "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("SNAP_TEST_INTEROP") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	s := &sshd{dir: t.TempDir()}
	for _, key := range []string{"host", "user", "stranger"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.dir, key))
	}
	run(t, "cp", filepath.Join(s.dir, "user.pub"), filepath.Join(s.dir, "authorized"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	s.write(t, "known", fmt.Sprintf("[127.0.0.1]:%d %s", s.port, s.read(t, "host.pub")))
	s.write(t, "sshd_config", fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %[2]s/host
PidFile none
AuthorizedKeysFile %[2]s/authorized
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
`, s.port, s.dir))
	if os.Geteuid() == 0 {
		_ = os.MkdirAll("/run/sshd", 0o755) // sshd of Debian insists on it
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *sshd) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.dir, "sshd_config"))
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("sshd does not listen: %s", s.read(t, "log"))
}

// stop ends the server. Its connections go on.
func (s *sshd) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// cutAll ends all connections, as kill -9 of the processes that serve them.
func (s *sshd) cutAll(t *testing.T) {
	t.Helper()
	out, _ := exec.Command("ps", "-eo", "pid=,ppid=,sid=").Output()
	children := map[int][]int{}
	for line := range strings.Lines(string(out)) {
		var pid, ppid, sid int
		if _, err := fmt.Sscan(line, &pid, &ppid, &sid); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	var kill func(pid int)
	kill = func(pid int) {
		for _, child := range children[pid] {
			kill(child)
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
	}
	kill(s.cmd.Process.Pid)
}

func (s *sshd) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *sshd) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// options log in with one of the keys, and compare the host with one of the lists.
func (s *sshd) options(key, known string) Options {
	return Options{NoPrompt: true, Args: fmt.Sprintf("-F none -oIdentitiesOnly=yes -oIdentityAgent=none -oGlobalKnownHostsFile=none -i %s/%s -oUserKnownHostsFile=%s/%s", s.dir, key, s.dir, known)}
}

func (s *sshd) folder(t *testing.T) Config {
	return Config{Host: "127.0.0.1", Port: s.port, Path: filepath.Join(t.TempDir(), "repository")}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

func TestInteropSSHD(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("logging in takes time")
	}
	s := startSSHD(t)
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		return create(t, s.folder(t), s.options("user", "known"))
	})
}

// TestInteropSSHDDies kills the processes that serve the connections in the middle of
// puts, lists and deletes.
func TestInteropSSHDDies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("logging in takes time")
	}
	s := startSSHD(t)
	b := create(t, s.folder(t), s.options("user", "known"))
	retry := func(run func() error) error {
		err := run()
		for n := 0; backend.Temporary(err) && n < 20; n++ {
			time.Sleep(50 * time.Millisecond)
			err = run()
		}
		return err
	}
	done := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for range 4 {
			select {
			case <-done:
				return
			case <-time.After(300 * time.Millisecond):
				s.cutAll(t)
			}
		}
	})
	data := make([]byte, 300_000)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 25 {
				name := fmt.Sprintf("packs/%02x/%d", j, i)
				if err := retry(func() error { return b.Put(t.Context(), name, data) }); err != nil && !errors.Is(err, backend.ErrExist) {
					t.Error(err)
				}
				if err := retry(func() error {
					return b.List(t.Context(), "packs/", func(i backend.Info) error {
						if i.Size != int64(len(data)) {
							return fmt.Errorf("%+v", i)
						}
						return nil
					})
				}); err != nil {
					t.Error(err)
				}
				if j%2 == 0 {
					if err := retry(func() error { return b.Delete(t.Context(), name) }); err != nil && !errors.Is(err, backend.ErrNotExist) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(done)
	killer.Wait()
	if got := len(list(t, b)); got != 4*12 {
		t.Errorf("%d files, want %d", got, 4*12)
	}
}

// TestInteropSSHMessages checks what people read if ssh cannot log in.
func TestInteropSSHMessages(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	s.write(t, "unknown", "")
	s.write(t, "changed", fmt.Sprintf("[127.0.0.1]:%d %s", s.port, s.read(t, "user.pub")))
	c := s.folder(t)
	closed, nowhere := c, c
	closed.Port = 1
	nowhere.Host = "nas.invalid"
	for _, tt := range []struct {
		about  string
		c      Config
		opts   Options
		texts  []string
		passes bool
	}{
		{"stranger", c, s.options("stranger", "known"), []string{"Permission denied (publickey)", "must log in without a password", fmt.Sprintf(`"ssh -p %d 127.0.0.1"`, s.port)}, false},
		{"unknown host", c, s.options("user", "unknown"), []string{"Host key verification failed", "compare the fingerprint"}, false},
		{"changed host", c, s.options("user", "changed"), []string{"has changed", fmt.Sprintf("ssh-keygen -R '[127.0.0.1]:%d'", s.port)}, false},
		{"no server", closed, s.options("user", "known"), []string{"Connection refused", "check that the SSH server runs there, and its port"}, true},
		{"no host", nowhere, s.options("user", "known"), []string{"resolve hostname"}, false},
		{"no program", c, Options{Command: "no-such-program"}, []string{"run no-such-program", "install OpenSSH"}, false},
		{"not SFTP", c, Options{Command: "sh -c 'echo Welcome to this computer; cat >/dev/null'"}, []string{"not SFTP", fmt.Sprintf(`"sftp -P %d 127.0.0.1"`, s.port), "start file"}, false},
		{"ends at once", c, Options{Command: "sh -c 'echo Go away >&2; exit 3'"}, []string{"cannot connect: Go away"}, false},
		{"says nothing", c, Options{Command: "false"}, []string{"cannot connect: exit status 1"}, false},
		{"ends well", c, Options{Command: "true"}, []string{"ended without an answer"}, false},
	} {
		_, err := Open(t.Context(), tt.c, tt.opts)
		if err == nil || backend.Temporary(err) != tt.passes && tt.about != "no host" || !errors.Is(err, backend.ErrOutOfReach) {
			t.Errorf("%s: %v", tt.about, err)
			continue
		}
		for _, text := range tt.texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v: want %q", tt.about, err, text)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, c, Options{Command: "sleep 1000"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open of a server that says nothing = %v", err)
	}
}

// Ctrl-C is a signal to the process group of the terminal. ssh must not be in that of
// this process.
func TestInteropProcessGroup(t *testing.T) {
	b := create(t, folder(t), Options{Command: opensshServer(t)})
	out, err := exec.Command("ps", "-eo", "ppid=,pgid=,comm=").Output()
	if err != nil {
		t.Skip(err)
	}
	found := false
	for line := range strings.Lines(string(out)) {
		var ppid, pgid int
		var name string
		if _, err := fmt.Sscan(line, &ppid, &pgid, &name); err == nil && ppid == os.Getpid() && name == "sftp-server" {
			found = true
			if pgid == syscall.Getpgrp() {
				t.Error("the server is in the process group of the test")
			}
		}
	}
	if !found {
		t.Error("the server does not run")
	}
	_ = b.Close()
}
