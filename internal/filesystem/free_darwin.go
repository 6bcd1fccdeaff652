package filesystem

import "golang.org/x/sys/unix"

// fragment returns the size of the blocks that Bavail counts.
func fragment(st *unix.Statfs_t) uint64 { return uint64(st.Bsize) }
