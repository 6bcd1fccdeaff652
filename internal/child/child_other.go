//go:build unix && !linux

package child

import "os/exec"

func start(cmd *exec.Cmd, _ Options, _ <-chan struct{}) error { return cmd.Start() }
