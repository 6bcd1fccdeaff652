package process

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

func TestState(t *testing.T) {
	self := Current()
	if self.Started == "" {
		t.Skipf("%s does not report when a process started", runtime.GOOS)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSleeper$")
	cmd.Env = append(os.Environ(), "PROCESS_TEST_SLEEPER=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := self
	child.PID = cmd.Process.Pid
	child.Started, _ = started(child.PID)
	if got := child.State(self); got != Alive {
		t.Errorf("a running process is %v", got)
	}
	reused := child
	reused.Started += "1"
	if got := reused.State(self); got != Dead {
		t.Errorf("a process whose number was reused is %v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The process is a zombie until Wait is called.
	in.Close()
	cmd.Wait()
	if got := child.State(self); got != Dead {
		t.Errorf("a killed process is %v", got)
	}
	for name, change := range map[string]func(*Identity){
		"elsewhere":         func(id *Identity) { id.Host += "x" },
		"without a host":    func(id *Identity) { id.Host = "" },
		"another container": func(id *Identity) { id.PIDNamespace += "x" },
		"no start":          func(id *Identity) { id.Started = "" },
	} {
		id := self
		change(&id)
		if got := id.State(self); got != Unknown {
			t.Errorf("%s: %v", name, got)
		}
	}
	if self.Boot != "" {
		id := self
		id.Boot += "x"
		if got := id.State(self); got != Dead {
			t.Errorf("a process before the last boot is %v", got)
		}
	}
}

// TestSleeper runs as the process whose state TestState checks.
func TestSleeper(t *testing.T) {
	if os.Getenv("PROCESS_TEST_SLEEPER") == "" {
		t.Skip("not asked for")
	}
	os.Stdin.Read(make([]byte, 1))
}
