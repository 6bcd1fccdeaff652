package local

import "golang.org/x/sys/unix"

// fragment is the unit in which blocks are counted.
func fragment(st *unix.Statfs_t) uint64 { return uint64(st.Bsize) }
