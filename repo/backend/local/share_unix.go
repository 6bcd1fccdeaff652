//go:build unix

package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// share makes a new file or folder accessible to everyone who may use the repository.
// share gives it the group of the repository's folder and that group's permissions
// (without execution, for a file). A folder also gets the set-group-ID bit if the
// repository's folder has it. A process of root also gives the file or folder to the
// owner of the repository's folder. Otherwise, after one import by a member of a group or
// by a job of root, the others could not even list the repository.
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
// that holds it, but gives that group no permissions: to share a repository, people set
// the permissions of its folder themselves. It does nothing for other users. It is no
// error if this fails.
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
