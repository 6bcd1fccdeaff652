//go:build !windows

package backend

import (
	"errors"
	"syscall"
)

func isReadOnlyErrno(err error) bool { return errors.Is(err, syscall.EROFS) }
