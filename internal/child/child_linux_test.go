package child

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestParent is the process that TestDieWithParent kills.
func TestParent(t *testing.T) {
	if os.Getenv("SNAP_TEST_PARENT") == "" {
		t.Skip("only for TestDieWithParent")
	}
	c, err := Start([]string{"sh", "-c", "echo $$; exec sleep 1000 <&-"}, Options{DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := bufio.NewReader(c.Out).ReadString('\n')
	fmt.Println("pid", pid, err)
	_ = c.Wait()
}

// A program that ignores the end of its input does not outlive a parent that is killed.
func TestDieWithParent(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestParent$")
	cmd.Env = append(os.Environ(), "SNAP_TEST_PARENT=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	pid := 0
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			pid, _ = strconv.Atoi(text)
			break
		}
	}
	if pid == 0 {
		t.Fatal("no child")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if isZombie(pid) {
			return // nobody waits for it here
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

func TestNoPasswords(t *testing.T) {
	t.Setenv("SNAP_PASSWORD", "hunter2")
	t.Setenv("SNAP_OTHER", "kept")
	c, err := Start([]string{"env"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	env, err := io.ReadAll(c.Out)
	if err != nil || c.Wait() != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(env), "hunter2") || !strings.Contains(string(env), "SNAP_OTHER=kept") {
		t.Errorf("%s", env)
	}
}
