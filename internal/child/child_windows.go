package child

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// startApart starts a program in a process group of its own: Ctrl-C must not end ssh
// before this process has removed its locks from the server.
func startApart(cmd *exec.Cmd, _ Options, _ <-chan struct{}) (release func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
	if err := cmd.Start(); err != nil {
		return nil, missingProgram(cmd.Args[0], err)
	}
	return func() {}, nil
}

// CanPrompt reports whether a program that this process starts can ask for a password.
func CanPrompt() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// isInterrupted reports whether a program ended because of Ctrl-C.
func isInterrupted(*exec.ExitError) bool { return false }
