package process

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func boot() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid")
	return id
}

func pidNamespace() string { return "" }

func started(pid int) (when string, exists bool) {
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ESRCH) {
		return "", false
	}
	if err != nil {
		return "", true
	}
	t := p.Proc.P_starttime
	return fmt.Sprintf("%d.%06d", t.Sec, t.Usec), true
}
