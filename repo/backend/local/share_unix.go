//go:build unix

package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// share lets those use a new file or folder who may use the repository: it gets the
// group of the repository's folder and, of the permissions of that group, those that
// make sense, and folders get the set-group-ID bit. A process of root also gives it to
// the owner of the folder. Otherwise, after one import by a member of a group or by a
// job of root, the others could not even list the repository.
//
// If the group cannot be set, the file stays private, since its permissions would be
// those of another group. Nothing fails for that: file systems without owners and modes
// refuse both.
func share(folder, f *os.File) {
	if folder == nil {
		return
	}
	above, err := folder.Stat()
	if err != nil {
		return
	}
	info, err := f.Stat()
	if err != nil {
		return
	}
	of, ok := above.Sys().(*syscall.Stat_t)
	has, ok2 := info.Sys().(*syscall.Stat_t)
	if !ok || !ok2 {
		return
	}
	owner := -1 // unchanged
	if os.Geteuid() == 0 && has.Uid != of.Uid {
		owner = int(of.Uid)
	}
	if owner != -1 || has.Gid != of.Gid {
		if f.Chown(owner, int(of.Gid)) != nil {
			return
		}
	}
	if mode := sharedMode(above.Mode(), info.IsDir()); mode != info.Mode()&^fs.ModeDir {
		_ = f.Chmod(mode)
	}
}

// giveAway gives a folder that root has just made to the owner and group of the folder
// that holds it, but gives that group no permissions: people who share a repository say
// so by its folder. It does nothing for other users. It is no error if this fails.
func giveAway(dir string) {
	if os.Geteuid() != 0 {
		return
	}
	if info, err := os.Stat(filepath.Join(dir, "..")); err == nil {
		if of, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = os.Lchown(dir, int(of.Uid), int(of.Gid))
		}
	}
}

// sharedMode returns the mode of a new file or folder in a repository whose folder has
// the mode above.
func sharedMode(above fs.FileMode, dir bool) fs.FileMode {
	if dir {
		return 0o700 | above&0o070 | above&fs.ModeSetgid
	}
	return 0o600 | above&0o060
}
