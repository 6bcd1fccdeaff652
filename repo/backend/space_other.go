//go:build !windows

package backend

import (
	"errors"
	"syscall"
)

func isNoSpaceErrno(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func isOutOfReachErrno(error) bool { return false }

func isInUseErrno(error) bool { return false }
