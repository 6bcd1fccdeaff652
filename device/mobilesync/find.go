package mobilesync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// Find returns dir if it is a backup folder. Otherwise it returns those direct
// children of dir that are backup folders, sorted. Children may be links or
// junctions, since users move backups to other disks that way. The error is
// ErrNoBackup if there are none.
func Find(dir string) ([]string, error) {
	out, err := find(dir)
	if err != nil {
		return nil, fmt.Errorf("find backups in %s: %w", dir, withHint(err))
	}
	return out, nil
}

func find(dir string) ([]string, error) {
	is, err := looksLikeBackup(dir)
	if err != nil {
		return nil, err
	}
	if is {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	var refused error
	for _, e := range entries {
		child := filepath.Join(dir, e.Name())
		if info, err := os.Stat(child); err != nil || !info.IsDir() {
			continue
		}
		is, err := looksLikeBackup(child)
		if errors.Is(err, fs.ErrPermission) {
			refused = err
		}
		if is {
			out = append(out, child)
		}
	}
	if len(out) == 0 {
		if refused != nil {
			return nil, refused
		}
		return nil, ErrNoBackup
	}
	slices.Sort(out)
	return out, nil
}

// looksLikeBackup looks for the files that only a backup has. Info.plist alone
// does not count, since every application of macOS has one.
func looksLikeBackup(dir string) (bool, error) {
	if _, err := os.Stat(dir); err != nil {
		return false, err
	}
	for _, name := range []string{ManifestDB, ManifestMBDB, ManifestPlist, StatusPlist} {
		switch info, err := os.Lstat(filepath.Join(dir, name)); {
		case err == nil && info.Mode().IsRegular():
			return true, nil
		case errors.Is(err, fs.ErrPermission):
			return false, err
		}
	}
	return false, nil
}

// withHint adds advice for the user to an error of macOS's privacy protection.
func withHint(err error) error { return hintFor(runtime.GOOS, err) }

func hintFor(goos string, err error) error {
	if goos != "darwin" || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w (macOS protects this folder: in System Settings, Privacy & Security, Full Disk Access, "+
		"allow the app or terminal that starts this program, then start it again)", err)
}
