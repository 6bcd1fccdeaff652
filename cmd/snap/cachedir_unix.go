//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// readableByAll reports whether every user of the computer can read an open file: its
// mode allows it, and so do all folders above it.
func readableByAll(name string, info fs.FileInfo) bool {
	if !info.Mode().IsRegular() || info.Mode()&0o004 == 0 {
		return false
	}
	name, err := filepath.Abs(name)
	if err != nil {
		return false
	}
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return false
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
