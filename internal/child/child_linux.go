package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// start starts a program. Linux kills it when the thread that has started it ends, so that
// thread belongs to a goroutine that waits until ended is closed.
func start(cmd *exec.Cmd, o Options, ended <-chan struct{}) error {
	if !o.DieWithParent {
		return cmd.Start()
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-ended
		}
	}()
	return <-started
}
