//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// notPrivate returns the reason why other users could read or change a folder, or ""
// if they cannot.
func notPrivate(info fs.FileInfo) string {
	if !info.IsDir() {
		return "is not a folder"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return "belongs to another user"
	}
	if perm := info.Mode().Perm(); perm != 0o700 {
		return fmt.Sprintf("has mode %04o, not 0700", perm)
	}
	return ""
}
