package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
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
	if self.Boot == "" {
		return
	}
	id := self
	id.Host, id.Machine = "renamed", ""
	if got := id.State(self); got != Alive {
		t.Errorf("a process of the same boot, before the host was renamed, is %v", got)
	}
}

// A process of another boot is dead only if the machine is the same: not if only the
// host name is, or the machine ID of a container or a clone.
func TestStateOfAnotherBoot(t *testing.T) {
	space := ""
	if runtime.GOOS == "linux" {
		space = "pid:[4026531836]"
	}
	self := Identity{Host: "raspberrypi", PID: 1 << 30, Started: "1", Boot: "b2", PIDNamespace: space, Machine: "m1"}
	for _, tt := range []struct {
		name   string
		change func(id, self *Identity)
		want   State
	}{
		{"restarted", func(*Identity, *Identity) {}, Dead},
		{"another machine of the same name", func(id, _ *Identity) { id.Machine = "m2" }, Unknown},
		{"an old lock without a machine", func(id, _ *Identity) { id.Machine = "" }, Unknown},
		{"no machine at all", func(id, self *Identity) { id.Machine, self.Machine = "", "" }, Unknown},
		{"a clone, or a renamed host", func(id, _ *Identity) { id.Host = "raspberrypi2" }, Unknown},
		{"no host name", func(id, self *Identity) { id.Host, self.Host = "", "" }, Unknown},
		{"another container", func(id, _ *Identity) { id.PIDNamespace = "pid:[1]" }, Unknown},
		{"no boot", func(id, _ *Identity) { id.Boot = "" }, Unknown},
	} {
		id, self := self, self
		id.Boot = "b1"
		tt.change(&id, &self)
		if got := id.State(self); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if runtime.GOOS == "linux" {
		self.PIDNamespace = "pid:[1]"
		id := self
		id.Boot = "b1"
		if got := id.State(self); got != Unknown {
			t.Errorf("containers with the same machine ID: %v", got)
		}
	}
}

func TestMachine(t *testing.T) {
	m := machine()
	if m != "" && (len(m) != 32 || m == hardwareID()) {
		t.Errorf("the machine is %q", m)
	}
	if again := machine(); again != m {
		t.Errorf("the machine is %q, then %q", m, again)
	}
}

// Systems without a machine ID get a random one, which stays.
func TestStoredID(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		group.Go(func() { got[i] = storedID(dir) })
	}
	group.Wait()
	for _, id := range got {
		if len(id) != minMachineID || id != got[0] {
			t.Fatalf("the IDs are %q", got)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "snap"))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if other := storedID(t.TempDir()); other == got[0] {
		t.Error("two machines have the same ID")
	}
	if id := storedID(""); id != "" {
		t.Errorf("without a folder: %q", id)
	}
}

// TestSleeper runs as the process whose state TestState checks.
func TestSleeper(t *testing.T) {
	if os.Getenv("PROCESS_TEST_SLEEPER") == "" {
		t.Skip("only TestState runs it")
	}
	os.Stdin.Read(make([]byte, 1))
}
