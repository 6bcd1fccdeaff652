package materialize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/snap-backup/snap/internal/abandoned"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
)

// partialName matches the names of hidden folders, of all snapshots. originalName matches
// those of folders that a run is replacing, and replacedName those that it has replaced.
var (
	partialName  = regexp.MustCompile(`^\..+\.[0-9a-f]{8}\.partial$`)
	originalName = regexp.MustCompile(`^\..+\.[0-9a-f]{8}\.partial\.old$`)
	replacedName = regexp.MustCompile(`^\..+\.[0-9a-f]{8}\.partial\.replaced$`)
)

// oldSuffix is added to the name of a hidden folder for that of the folder to be replaced.
// When the new folder is in place, replacedSuffix takes the place of oldSuffix: only then
// may another run remove the old folder.
const (
	oldSuffix      = ".old"
	replacedSuffix = ".replaced"
)

// IsOriginal reports whether a folder that an interrupted run has left is one that the
// run was going to replace. Perhaps the run did not replace it, so no run removes such a
// folder.
func IsOriginal(dir string) bool { return originalName.MatchString(filepath.Base(dir)) }

// UnfinishedError says what a failed attempt has left. The next attempt continues from
// there.
type UnfinishedError struct {
	Err   error
	Dir   string // the hidden folder
	Bytes int64
	text  string
}

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("%v; %s keeps what was written (%s)", e.Err, e.Dir, e.text)
}

// Unwrap returns the reason.
func (e *UnfinishedError) Unwrap() error { return e.Err }

// partial is the hidden folder of a snapshot in a target.
type partial struct {
	dir     string
	release func() error // gives up the claim
}

// openPartial claims the hidden folder for this process, and makes it if there is none of
// an interrupted run. It first removes the hidden folders that other runs have left,
// since they need room.
func (m *job) openPartial(ctx context.Context, s *repo.Snapshot, target, name string) (*partial, error) {
	self := process.Current()
	own := fmt.Sprintf(".%s.%s.partial", name, s.ID.Short())
	use := func(n string) abandoned.Use {
		switch {
		case replacedName.MatchString(n):
			return abandoned.Unused
		case n != own && partialName.MatchString(n), n != own+oldSuffix && IsOriginal(n):
			return abandoned.Claimed // no process claims an original, so Sweep only reports it
		}
		return abandoned.Other
	}
	if err := abandoned.Sweep(ctx, target, use, self, m.opts.found); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return nil, err
	}
	p := &partial{dir: filepath.Join(target, own)}
	var err error
	if p.release, err = abandoned.Claim(p.dir, self); err != nil {
		return nil, err
	}
	if err := makeHidden(p.dir); err != nil {
		return nil, errors.Join(err, p.release())
	}
	return p, nil
}

// makeHidden makes the hidden folder, or finds the one of an interrupted run.
// It refuses a link, which may point elsewhere.
func makeHidden(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s exists and is not a folder; remove it", dir)
	}
	return err
}

// fail returns err, with what is left of the attempt. An empty folder is removed.
func (p *partial) fail(ctx context.Context, err error, o *Options) error {
	root, rerr := os.OpenRoot(filepath.Dir(p.dir))
	if rerr != nil {
		return err
	}
	defer root.Close()
	size := abandoned.Size(context.WithoutCancel(ctx), root, filepath.Base(p.dir)) // ctx may be why it failed
	if size > 0 {
		return &UnfinishedError{err, p.dir, size, o.bytes(size)}
	}
	if root.RemoveAll(filepath.Base(p.dir)) == nil {
		_ = p.release()
	}
	return err
}

// found reports a folder that an interrupted run left.
func (o *Options) found(f abandoned.Folder) {
	if o.Abandoned != nil {
		o.Abandoned(f)
	}
}
