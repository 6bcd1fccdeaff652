package sftp

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/child"
	"golang.org/x/sys/unix"
)

// TestTerminalChild is the process that TestInteropTerminal starts.
func TestTerminalChild(t *testing.T) {
	program := os.Getenv("SNAP_TEST_TERMINAL")
	if program == "" {
		t.Skip("only for TestInteropTerminal")
	}
	if !child.CanPrompt() {
		t.Fatal("this process cannot ask")
	}
	l, err := process([]string{"sh", "-c", program}, true)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := bufio.NewReader(l.out).ReadString('\n')
	fmt.Printf("the answer is %q, %v\n", answer, err)
	l.connected()
	fmt.Println("in the foreground again:", child.CanPrompt())
	_ = l.in.Close()
	fmt.Println("ended with", l.wait())
}

// TestInteropTerminal lets a program in the place of ssh ask at a terminal.
func TestInteropTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ typed, want string }{
		{"secret\n", `the answer is "secret\n", <nil>`},
		{"\x03", "ended with ssh was interrupted"}, // Ctrl-C ends the program that asks, and no other
	} {
		screen := inTerminal(t, tt.typed)
		if !strings.Contains(screen, tt.want) || !strings.Contains(screen, "in the foreground again: true") || !strings.Contains(screen, "PASS") {
			t.Errorf("typed %q, printed %q", tt.typed, screen)
		}
	}
}

// inTerminal runs TestTerminalChild in a new terminal, types something when it is asked,
// and returns what is printed.
func inTerminal(t *testing.T, typed string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestTerminalChild$", "-test.v")
	cmd.Env = append(os.Environ(), `SNAP_TEST_TERMINAL=printf password: >/dev/tty; read x </dev/tty; echo "$x"; cat`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	timer := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	var screen strings.Builder
	buf := make([]byte, 4096)
	for asked := false; ; {
		n, err := master.Read(buf)
		screen.Write(buf[:n])
		if !asked && strings.Contains(screen.String(), "password:") {
			asked = true
			_, _ = master.WriteString(typed)
		}
		if err != nil { // the last process has closed the terminal
			break
		}
	}
	_ = cmd.Wait()
	return screen.String()
}
