//go:build unix

package host

import (
	"errors"
	"os"

	"github.com/snap-backup/snap/internal/filesystem"
	"golang.org/x/sys/unix"
)

func lockFile(f *os.File) error {
	err := filesystem.Retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errLocked
	case filesystem.IsUnsupported(err), errors.Is(err, unix.ENOLCK):
		return nil // the home folder may be on a share without locks; the device itself refuses a second backup
	}
	return err
}
