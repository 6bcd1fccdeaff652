//go:build unix

package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// untrusted returns why others could have written a file, or "" if only its user and the
// administrator could.
func untrusted(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "its owner is not known"
	}
	if why := writable(info); why != "" {
		return "this file " + why
	}
	path, err = filepath.EvalSymlinks(path)
	if err == nil {
		info, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return "the owner of its folder is not known"
	}
	if info.Mode()&fs.ModeSticky != 0 { // others cannot replace files there
		return ""
	}
	if why := writable(info); why != "" {
		return "the folder of this file " + why
	}
	return ""
}

func writable(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "belongs to another user"
	}
	if info.Mode().Perm()&0o022 != 0 {
		return "can be written by other users (chmod go-w)"
	}
	return ""
}
