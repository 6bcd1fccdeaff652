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

func isOutOfReachErrno(err error) bool {
	for _, gone := range []syscall.Errno{
		windows.ERROR_NOT_READY,
		windows.ERROR_DEV_NOT_EXIST,
		windows.ERROR_DEVICE_NOT_CONNECTED,
		windows.ERROR_NETNAME_DELETED,
		windows.ERROR_BAD_NETPATH,
		windows.ERROR_BAD_NET_NAME,
		windows.ERROR_UNEXP_NET_ERR,
		windows.ERROR_NETWORK_UNREACHABLE,
		windows.ERROR_HOST_UNREACHABLE,
		windows.ERROR_CONNECTION_ABORTED,
		windows.ERROR_NOT_ENOUGH_MEMORY,
		windows.ERROR_TOO_MANY_OPEN_FILES,
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

func isInUseErrno(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}
