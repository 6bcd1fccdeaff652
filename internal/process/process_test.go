package process

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

func TestState(t *testing.T) {
	self := Self()
	if self.Started == "" {
		t.Skipf("%s does not tell when a process started", runtime.GOOS)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSleeper$")
	cmd.Env = append(os.Environ(), "OWNER_SLEEPER=1")
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
		t.Errorf("a process that runs: %v", got)
	}
	reused := child
	reused.Started += "1"
	if got := reused.State(self); got != Dead {
		t.Errorf("a process whose number another one has: %v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Until it is waited for, it is there and has ended.
	in.Close()
	cmd.Wait()
	if got := child.State(self); got != Dead {
		t.Errorf("a process that was killed: %v", got)
	}
	for name, change := range map[string]func(*Identity){
		"elsewhere":         func(o *Identity) { o.Host += "x" },
		"without a host":    func(o *Identity) { o.Host = "" },
		"another container": func(o *Identity) { o.Space += "x" },
		"no start":          func(o *Identity) { o.Started = "" },
	} {
		o := self
		change(&o)
		if got := o.State(self); got != Unknown {
			t.Errorf("%s: %v", name, got)
		}
	}
	if self.Boot != "" {
		o := self
		o.Boot += "x"
		if got := o.State(self); got != Dead {
			t.Errorf("before the last boot: %v", got)
		}
	}
}

// TestSleeper is the process that TestState looks at.
func TestSleeper(t *testing.T) {
	if os.Getenv("OWNER_SLEEPER") == "" {
		t.Skip("not asked for")
	}
	os.Stdin.Read(make([]byte, 1))
}
