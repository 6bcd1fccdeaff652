package local

import (
	"github.com/snap-backup/snap/internal/filesystem"
	"golang.org/x/sys/unix"
)

// openNoLinks opens a file without following links. It does not wait if name is a
// pipe.
func openNoLinks(folder int, name string) (fd int, err error) {
	return filesystem.RetryValue(func() (int, error) {
		return unix.Openat(folder, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW_ANY, 0)
	})
}
