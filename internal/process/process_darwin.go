package process

import (
	"encoding/hex"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func boot() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid")
	return id
}

// startsUnique says whether start times differ across boots. It does not matter here,
// since a boot always has an ID.
const startsUnique = false

// hardwareID returns the UUID of the hardware, which ioreg shows as IOPlatformUUID.
func hardwareID() string {
	var id [16]byte
	wait := unix.Timespec{Sec: 1}
	_, _, errno := unix.Syscall(unix.SYS_GETHOSTUUID, uintptr(unsafe.Pointer(&id)), uintptr(unsafe.Pointer(&wait)), 0)
	if errno != 0 {
		return ""
	}
	return hex.EncodeToString(id[:])
}

func contained(string) bool { return false }

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
