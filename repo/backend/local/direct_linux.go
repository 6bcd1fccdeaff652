package local

import (
	"github.com/snap-backup/snap/internal/filesystem"
	"golang.org/x/sys/unix"
)

// openNoLinks opens a file without following links. It does not wait if name is a
// pipe.
func openNoLinks(folder int, name string) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	return filesystem.RetryValue(func() (int, error) { return unix.Openat2(folder, name, &how) })
}
