package virtual

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
	// staleSpool is how old a spool is, of which no run is known, that is removed
	// although nobody can tell whether its process is alive, such as one in another
	// container: a spool of a run that has only begun is younger.
	staleSpool = 24 * time.Hour
	// foreignSpool is the same of one of another repository, whose runs are not
	// known here. Prune lets go of unfinished runs after two weeks.
	foreignSpool = 30 * 24 * time.Hour
	// maxOwner bounds what is read of an owner, in bytes.
	maxOwner = 16 << 10
)

// spoolShape is how spools of any repository are called.
var spoolShape = regexp.MustCompile(`^snap-[0-9a-f]{32}-[0-9a-f]{16}$`)

// writeOwner says in a spool who is at work there.
func writeOwner(spool *os.Root, self process.Identity) error {
	b, err := json.Marshal(self)
	if err != nil {
		return err
	}
	f, err := spool.OpenFile(spoolOwner, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// sweepSpools removes spools that nobody continues: of runs of this repository
// that are not known, whose process is dead or was last heard of long ago, and
// those that were left by other repositories long ago. Never one of a process that is
// alive. What cannot be removed stays for the next time.
func sweepSpools(dir, repo string, known map[string]bool, self process.Identity, now time.Time) {
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
		if !e.IsDir() || !spoolShape.MatchString(e.Name()) {
			continue
		}
		run, own := strings.CutPrefix(e.Name(), spoolName(repo, ""))
		if own && known[run] {
			continue
		}
		old := now.Sub(lastUse(spools, e))
		state := spoolState(spools, e.Name(), self)
		if state == process.Alive || own && state == process.Unknown && old < staleSpool || !own && old < foreignSpool {
			continue
		}
		_ = spools.RemoveAll(e.Name())
	}
}

// spoolState judges the process that was last at work in a spool.
func spoolState(spools *os.Root, name string, self process.Identity) process.State {
	path := filepath.Join(name, spoolOwner)
	if fileOrNothing(spools, path) != nil {
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

// lastUse is when something was last written to a spool.
func lastUse(spools *os.Root, e fs.DirEntry) (last time.Time) {
	for _, name := range []string{"", spoolData, spoolIndex, spoolOwner} {
		if info, err := spools.Lstat(filepath.Join(e.Name(), name)); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
