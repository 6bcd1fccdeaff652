package filesystem

import "golang.org/x/sys/unix"

// fragment returns the size of the blocks that Bavail counts. On some file systems
// Bsize is the size of a transfer instead.
func fragment(st *unix.Statfs_t) uint64 {
	if st.Frsize > 0 {
		return uint64(st.Frsize)
	}
	return uint64(st.Bsize)
}
