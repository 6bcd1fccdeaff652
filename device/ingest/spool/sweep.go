package spool

import (
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
	// staleAge is the age at which the spool of an unknown backup is removed if
	// it is unknown whether its process is alive, as in another container. The
	// spool of a backup that has just begun is younger.
	staleAge = 24 * time.Hour
	// foreignAge is the same for a spool of another repository, whose backups are
	// not known here. Prune drops unfinished backups after two weeks.
	foreignAge = 30 * 24 * time.Hour
	// maxOwner bounds the bytes that are read of an owner file.
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

// Sweep removes the spools in dir that no backup will continue: those of unknown
// backups of this repository whose process is dead or was last active long ago,
// and those that other repositories left long ago. It never removes the spool of
// a running process. What it cannot remove stays for the next time.
func Sweep(dir, repo string, known map[string]bool, self process.Identity, now time.Time) {
	spools, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer spools.Close()
	entries, err := fs.ReadDir(spools.FS(), ".")
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
