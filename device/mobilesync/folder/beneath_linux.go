package folder

import "golang.org/x/sys/unix"

// openBeneath opens path below dir in one call, without following a link or
// waiting for a pipe. ok is false if the call fails or the kernel does not
// support it. The caller then opens one component after the other, which also
// tells why path cannot be opened.
func openBeneath(dir int, path string) (fd int, ok bool) {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	return fd, err == nil
}
