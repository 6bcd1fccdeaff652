package mobilesync

import "golang.org/x/sys/unix"

// openBeneath opens path below dir in one call, passing no link on the way. It
// does not wait if path is a pipe. ok is false when the kernel cannot say, or
// does not know the call: then the long way tells why.
func openBeneath(dir int, path string) (fd int, ok bool) {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	return fd, err == nil
}
