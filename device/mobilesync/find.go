package mobilesync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

var (
	// ErrNoManifest says that a folder looks like that of a device, but has none of
	// the files that Open needs.
	ErrNoManifest = errors.New("the folder belongs to a device, but there is no backup in it")
	// ErrDeadLink says that a link leads to nothing.
	ErrDeadLink = errors.New("the link leads to nothing")
)

// Found is a folder that Find has found. Err, if set, says why it cannot be opened.
// It may then not be a backup folder at all.
type Found struct {
	Dir string
	Err error
}

// IncompleteSuffix is the end of the name of a folder that lacks files, because the
// repository that it was written from has lost them. It looks like a backup, but Find
// passes over it. To open it, name the folder itself.
const IncompleteSuffix = "-incomplete"

// Find returns dir if it is a backup folder. Otherwise it returns those direct
// children of dir that are backup folders, sorted. Children may be links or
// junctions, since users move backups to other disks that way.
//
// A folder of a device counts, too, if its first backup ended before a manifest was
// written. Children that cannot be looked at are returned with the error, so that a
// backup is never left out in silence. Other folders and files are ignored.
//
// The error is ErrNoBackup if there is no such folder.
func Find(dir string) ([]Found, error) {
	out, err := find(dir)
	if err != nil {
		return nil, fmt.Errorf("find backups in %s: %w", dir, withHint(err))
	}
	return out, nil
}

func find(dir string) ([]Found, error) {
	self, lookErr := look(dir)
	if lookErr != nil && !errors.Is(lookErr, ErrNoManifest) {
		return nil, lookErr
	}
	if self == isBackup {
		return []Found{{Dir: dir}}, nil
	}
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	var out []Found
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), IncompleteSuffix) {
			continue
		}
		child := filepath.Join(dir, e.Name())
		is, err := look(child)
		switch {
		case err != nil && (errors.Is(err, fs.ErrNotExist) || ofSystem(e.Name())):
		case err != nil:
			out = append(out, Found{child, fmt.Errorf("%s: %w", child, withHint(err))})
		case is != noBackup:
			out = append(out, Found{Dir: child})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case lookErr != nil:
		return nil, lookErr
	case self == begunBackup:
		return []Found{{Dir: dir}}, nil
	}
	return nil, ErrNoBackup
}

// likeness says how much a folder looks like a backup folder.
type likeness int

const (
	noBackup    likeness = iota
	begunBackup          // there is Info.plist, but no manifest
	isBackup
)

// look looks for the files that only a backup has. Info.plist alone does not count,
// since every application of macOS has one. The error is ErrNoManifest if the
// folder is named like that of a device and Open would fail, and ErrDeadLink if dir
// is a link that leads to nothing.
func look(dir string) (likeness, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		to, lerr := os.Readlink(dir)
		if lerr != nil {
			return noBackup, err // dir has vanished, or never was
		}
		return noBackup, fmt.Errorf("%w: there is no %s", ErrDeadLink, to)
	case err != nil:
		return noBackup, err
	case !info.IsDir():
		return noBackup, nil
	}
	has := map[string]bool{}
	for _, name := range []string{ManifestDB, ManifestMBDB, ManifestPlist, StatusPlist, InfoPlist, snapshotDir} {
		info, err := os.Lstat(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return noBackup, err
		}
		has[name] = info.Mode().IsRegular() || name == snapshotDir && info.IsDir()
		if has[name] && name != InfoPlist && name != snapshotDir {
			return isBackup, nil
		}
	}
	named := beginsWithUDID(filepath.Base(dir))
	switch {
	case has[InfoPlist] && (named || has[snapshotDir]):
		return begunBackup, nil
	case named:
		return noBackup, ErrNoManifest
	}
	return noBackup, nil
}

// ofSystem reports whether a system uses a name for folders at the top of a disk,
// which users may not read.
func ofSystem(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "$") || name == "lost+found" || name == "System Volume Information"
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
