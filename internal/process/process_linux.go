package process

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

func boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// startsUnique says whether start times differ across boots. They do not: they count from
// the boot.
const startsUnique = false

// hardwareID returns the ID that systemd or D-Bus gave this system.
func hardwareID() string {
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(name); err == nil && len(bytes.TrimSpace(b)) >= minMachineID {
			return string(bytes.TrimSpace(b))
		}
	}
	return ""
}

// hostNamespace is the namespace of processes outside of containers.
const hostNamespace = "pid:[4026531836]"

// contained reports whether a namespace is that of a container. All containers of an
// image can have the same machine ID.
func contained(space string) bool { return space != hostNamespace }

func pidNamespace() string {
	s, _ := os.Readlink("/proc/self/ns/pid")
	return s
}

// started returns when a process started, in ticks since the boot: field 22 of
// its stat file. The second field is the name in parentheses and can hold any
// bytes.
func started(pid int) (ticks string, exists bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", !errors.Is(err, fs.ErrNotExist)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return "", true
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", false // it has ended, but its parent has not waited for it
	}
	return fields[19], true
}
