package spool

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/process"
)

const (
	// staleAge is the age from which the spool of an unknown backup is removed even
	// if it cannot be determined whether its process is alive, as in another
	// container. Younger spools stay, since their backup may have just begun.
	staleAge = 24 * time.Hour
	// foreignAge is the age from which a spool of another repository is removed.
	// The unfinished backups of that repository are not known here, but a prune
	// drops them after two weeks.
	foreignAge = 30 * 24 * time.Hour
	// maxOwner bounds how many bytes of an owner file are read.
	maxOwner = 16 << 10
)

// shape matches the names of spools of all repositories.
var shape = regexp.MustCompile(`^snap-[0-9a-f]{32}-[0-9a-f]{16}$`)

// writeOwner writes the owner file of a spool.
func writeOwner(spool *os.Root, self process.Identity) error {
	b, err := json.Marshal(self)
	if err != nil {
		return err
	}
	f, err := spool.OpenFile(ownerFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Sweep removes the spools in dir that no backup will continue. It removes a
// spool of this repository if its backup is not in known and its process is
// dead. If the state of the process is unknown, the spool stays until it has
// not been used for staleAge. A spool of another repository stays until it has
// not been used for foreignAge. Sweep never removes the spool of a running
// process. Spools that it cannot remove stay until the next call. Ages are told by the
// clock of the file system: the folder may be on a file server.
func Sweep(dir, repo string, known map[string]bool, self process.Identity) {
	spools, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer spools.Close()
	entries, err := fs.ReadDir(spools.FS(), ".")
	if err != nil || len(entries) == 0 {
		return
	}
	now, err := fileTime(spools)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !shape.MatchString(e.Name()) {
			continue
		}
		run, own := strings.CutPrefix(e.Name(), Name(repo, ""))
		if own && known[run] {
			continue
		}
		age := now.Sub(lastUse(spools, e))
		state := ownerState(spools, e.Name(), self)
		if state == process.Alive || own && state == process.Unknown && age < staleAge || !own && age < foreignAge {
			continue
		}
		_ = spools.RemoveAll(e.Name())
	}
}

// fileTime returns the time by the clock of a file system: that of a new file.
func fileTime(dir *os.Root) (time.Time, error) {
	name := "snap-time-" + rand.Text()
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = dir.Remove(name) }()
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// ownerState returns the state of the process that last used a spool.
func ownerState(spools *os.Root, name string, self process.Identity) process.State {
	path := filepath.Join(name, ownerFile)
	if checkRegular(spools, path) != nil {
		return process.Unknown
	}
	f, err := spools.Open(path)
	if err != nil {
		return process.Unknown
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOwner))
	var o process.Identity
	if err != nil || json.Unmarshal(b, &o) != nil {
		return process.Unknown
	}
	return o.State(self)
}

// lastUse returns when something was last written to a spool.
func lastUse(spools *os.Root, e fs.DirEntry) (last time.Time) {
	for _, name := range []string{"", dataFile, indexFile, ownerFile} {
		if info, err := spools.Lstat(filepath.Join(e.Name(), name)); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
