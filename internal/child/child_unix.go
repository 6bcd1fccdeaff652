//go:build unix

package child

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// startApart starts a program in a process group of its own: Ctrl-C must not end ssh
// before this process has removed its locks from the server. If it may ask for
// something, its group is in the foreground, since only such a group may read from the
// terminal. release brings this process back to the foreground; it may be called often.
func startApart(cmd *exec.Cmd, o Options, ended <-chan struct{}) (release func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var tty *os.File
	if o.Prompt {
		tty = foregroundTerminal()
	}
	if tty != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Foreground: true, Ctty: int(tty.Fd())}
	}
	release = sync.OnceFunc(func() { backToForeground(tty) })
	if err := start(cmd, o, ended); err != nil {
		release()
		return nil, missingProgram(cmd.Args[0], err)
	}
	return release, nil
}

// CanPrompt reports whether a program that this process starts can ask for a password.
func CanPrompt() bool {
	tty := foregroundTerminal()
	if tty == nil {
		return false
	}
	_ = tty.Close()
	return true
}

// foregroundTerminal opens the terminal of this process, if there is one and this process
// is in its foreground; otherwise it returns nil.
func foregroundTerminal() *os.File {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	if err != nil || group != unix.Getpgrp() {
		_ = tty.Close()
		return nil
	}
	return tty
}

// backToForeground makes the group of this process the foreground of its terminal again.
func backToForeground(tty *os.File) {
	if tty == nil {
		return
	}
	// A process of the background that does this is stopped unless it ignores the signal.
	signal.Ignore(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
	signal.Reset(syscall.SIGTTOU)
	_ = tty.Close()
}

// isInterrupted reports whether a program ended because of Ctrl-C.
func isInterrupted(e *exec.ExitError) bool {
	status, ok := e.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGINT
}
