package backend

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

func isNoSpaceErrno(err error) bool {
	for _, full := range []syscall.Errno{
		windows.ERROR_DISK_FULL,
		windows.ERROR_HANDLE_DISK_FULL,
		windows.ERROR_DISK_QUOTA_EXCEEDED,
		syscall.ENOSPC,
	} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
