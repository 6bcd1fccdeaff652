package backend

import (
	"errors"

	"golang.org/x/sys/windows"
)

func isReadOnlyErrno(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
