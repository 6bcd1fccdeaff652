package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// MaterializeOptions say how to materialize.
type MaterializeOptions struct {
	// Replace allows to replace a folder that is there. It stays until the new
	// one is complete.
	Replace bool
	// Verify reads back what was written.
	Verify   bool
	Workers  int // goroutines that write, at least 1
	Progress *Progress
}

// MaterializeResult says what Materialize did.
type MaterializeResult struct {
	Dir      string `json:"dir"` // the folder written
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Kept     int64  `json:"kept_files"` // whole already, from an interrupted run
	Verified bool   `json:"verified"`
}

// Materialize writes a snapshot as target/UDID, a folder as Finder, iTunes and
// idevicebackup2 know it. It works in a hidden folder beside that and renames
// it at the end, so the folder appears complete or not at all. After an
// interruption the hidden folder stays; the next call with the same snapshot
// and target checks and keeps what is whole in it.
func Materialize(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts MaterializeOptions) (*MaterializeResult, error) {
	name, err := FolderName(s)
	if err != nil {
		return nil, err
	}
	return materialize(ctx, r, s, target, name, asStored, opts)
}

// materialize writes what newView makes of the snapshot's entries as the
// folder target/name.
func materialize(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target, name string, newView func() view, opts MaterializeOptions) (*MaterializeResult, error) {
	if opts.Progress == nil {
		opts.Progress = &Progress{}
	}
	m := &materializer{r: r, opts: opts, newView: newView, res: &MaterializeResult{Dir: filepath.Join(target, name)}}
	if err := m.vacant(); err != nil {
		return nil, err
	}
	partial := filepath.Join(target, fmt.Sprintf(".%s.%s.partial", name, s.ID.Short()))
	if err := makeHidden(partial); err != nil {
		return nil, fmt.Errorf("materialize %s: %w", s.ID.Short(), err)
	}
	if err := m.fill(ctx, s, partial); err != nil {
		return nil, fmt.Errorf("materialize %s: %w", s.ID.Short(), err)
	}
	m.res.Kept = m.keptFiles.Load()
	opts.Progress.enter("finishing")
	if err := syncTree(partial); err != nil {
		return nil, fmt.Errorf("make %s durable: %w", partial, err)
	}
	if err := m.install(partial); err != nil {
		return nil, err
	}
	return m.res, nil
}

// makeHidden makes the folder to work in, or finds the one of an interrupted
// run. A link in its place would lead elsewhere.
func makeHidden(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is in the way and no folder: remove it", dir)
	}
	return err
}

// vacant reports whether the folder may get its name. With Replace a folder,
// or a link to one, may be there; anything else is not for us to remove.
func (m *materializer) vacant() error {
	_, err := os.Lstat(m.res.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !m.opts.Replace {
		return fmt.Errorf("%s: %w", m.res.Dir, ErrTargetExists)
	}
	if info, err := os.Stat(m.res.Dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no folder, so it is not replaced", m.res.Dir)
	}
	return nil
}

// FolderName returns the name of the folder that a snapshot is materialized
// as: its UDID, or the name of the folder it came from where that is unknown.
func FolderName(s *repo.Snapshot) (string, error) {
	name := s.Device.UDID
	if name == "" {
		name = s.Source.Folder
	}
	if err := folder.CheckPath(name); err != nil || strings.Contains(name, "/") {
		return "", fmt.Errorf("snapshot %s: %q cannot be the name of a folder", s.ID.Short(), name)
	}
	return name, nil
}

// install gives the finished folder its name. What it replaces goes when the
// new name is durable.
func (m *materializer) install(partial string) error {
	if err := m.vacant(); err != nil {
		return err
	}
	old := partial + ".old"
	if m.opts.Replace {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		if err := os.Rename(m.res.Dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(partial, m.res.Dir); err != nil {
		if m.opts.Replace {
			err = fmt.Errorf("%w; the folder that was to be replaced is now %s", err, old)
		}
		return err
	}
	if err := syncDir(filepath.Dir(m.res.Dir)); err != nil {
		return fmt.Errorf("make the name of %s durable: %w", m.res.Dir, err)
	}
	if m.opts.Replace {
		return os.RemoveAll(old)
	}
	return nil
}

// syncDir makes names in a folder durable, where the system lets folders be
// flushed.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// materializer is one run of Materialize.
type materializer struct {
	r    *repo.Repo
	opts MaterializeOptions
	res  *MaterializeResult
	root *os.Root // the hidden folder: nothing is opened but through it

	folder *os.File   // the same folder, for createDirect; nil if that is of no use
	exact  exactModes // likewise

	newView   func() view
	layout    *layout
	keptFiles atomic.Int64
}

// walk calls fn for the entries of a snapshot as they are to be written.
func (m *materializer) walk(ctx context.Context, s *repo.Snapshot, fn func(*tree.Entry) error) error {
	look := m.newView()
	return m.r.Walk(ctx, s, "", func(e *tree.Entry) error {
		if e, ok := look(e); ok {
			return fn(&e)
		}
		return nil
	})
}

// fill writes all entries below dir.
func (m *materializer) fill(ctx context.Context, s *repo.Snapshot, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	m.root = root
	if folder, err := root.Open("."); err == nil {
		defer folder.Close()
		m.folder = folder // without it writing is only slower
	}
	m.opts.Progress.enter("reading snapshot")
	if err := m.prepare(ctx, s); err != nil {
		return err
	}
	m.opts.Progress.enter("writing files")
	m.opts.Progress.TotalFiles.Store(m.res.Files)
	m.opts.Progress.TotalBytes.Store(m.res.Bytes)
	if err := m.each(ctx, s, m.file); err != nil {
		return err
	}
	if err := m.complete(ctx); err != nil {
		return err
	}
	if m.opts.Verify {
		m.opts.Progress.enter("reading back")
		m.opts.Progress.Files.Store(0)
		m.opts.Progress.Bytes.Store(0)
		if err := m.each(ctx, s, m.verify); err != nil {
			return err
		}
		m.res.Verified = true
	}
	return m.finishDirs()
}

// finishDirs sets modes and times of folders, the deepest first, after
// everything in them is written.
func (m *materializer) finishDirs() error {
	for i := range slices.Backward(m.layout.dirs) {
		if err := m.setMeta(&m.layout.dirs[i], 0o700); err != nil {
			return err
		}
	}
	return nil
}
