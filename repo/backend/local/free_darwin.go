package local

import "golang.org/x/sys/unix"

// fragment returns the unit of the number of blocks.
func fragment(st *unix.Statfs_t) uint64 { return uint64(st.Bsize) }
