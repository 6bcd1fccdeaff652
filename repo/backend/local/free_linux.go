package local

import "golang.org/x/sys/unix"

// fragment is the unit in which blocks are counted; the size of a transfer,
// Bsize, is another one on some file systems.
func fragment(st *unix.Statfs_t) uint64 {
	if st.Frsize > 0 {
		return uint64(st.Frsize)
	}
	return uint64(st.Bsize)
}
