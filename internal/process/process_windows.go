package process

import (
	"errors"
	"strconv"

	"golang.org/x/sys/windows"
)

// No boot ID is needed: a creation time is unique across boots.
func boot() string         { return "" }
func pidNamespace() string { return "" }

const stillActive = 259 // STILL_ACTIVE

func started(pid int) (when string, exists bool) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return "", !errors.Is(err, windows.ERROR_INVALID_PARAMETER)
	}
	defer windows.CloseHandle(h)
	var code uint32
	if windows.GetExitCodeProcess(h, &code) == nil && code != stillActive {
		return "", false
	}
	var created, exit, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exit, &kernel, &user); err != nil {
		return "", true
	}
	return strconv.FormatInt(created.Nanoseconds(), 10), true
}
