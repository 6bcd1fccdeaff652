// Package materialize writes a snapshot as a folder: a backup folder as Apple's
// programs know it, or the decrypted files of the device.
//
// A backup folder is byte for byte the one that was ingested, with all folders,
// modes and times. A folder appears complete or not at all. Nothing is written
// outside the target, whatever names the snapshot has. The package never writes
// to the repository, and prints nothing.
package materialize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Options say how to write a folder.
type Options struct {
	// Replace replaces an existing folder when the new one is complete.
	Replace bool
	// Verify reads back all files.
	Verify   bool
	Workers  int // goroutines that write, at least 1
	Progress *blob.Progress
}

// Errors that callers may want to handle; test for them with errors.Is.
var (
	// ErrTargetExists says that the folder exists and Replace was not set.
	ErrTargetExists = errors.New("target exists")
	// ErrVerify says that a file on disk differs from what was written.
	ErrVerify = errors.New("verification failed")
	// ErrLocked says that the snapshot of an encrypted backup was stored without
	// the backup password, so its files cannot be decrypted.
	ErrLocked = errors.New("the snapshot was stored locked")
)

// Result says what was written.
type Result struct {
	Dir      string `json:"dir"` // the folder written
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Kept     int64  `json:"kept_files"` // files that an interrupted run had already completed
	Verified bool   `json:"verified"`
}

// Write writes a snapshot as target/UDID, a backup folder as Finder, iTunes and
// idevicebackup2 know it. It writes to a hidden folder in target and renames
// the hidden folder at the end. After an interruption the hidden folder stays;
// the next call with the same snapshot and target keeps the complete files in
// it.
func Write(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts Options) (*Result, error) {
	name, err := folderName(s)
	if err != nil {
		return nil, err
	}
	return write(ctx, r, s, target, name, asStored, opts)
}

// write writes the snapshot, as seen through a new view, to the folder
// target/name.
func write(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target, name string, newView func() view, opts Options) (*Result, error) {
	if opts.Progress == nil {
		opts.Progress = &blob.Progress{}
	}
	m := &job{r: r, opts: opts, newView: newView, res: &Result{Dir: filepath.Join(target, name)}}
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
	opts.Progress.Enter("finishing")
	if err := syncTree(partial); err != nil {
		return nil, fmt.Errorf("make %s durable: %w", partial, err)
	}
	if err := m.install(partial); err != nil {
		return nil, err
	}
	return m.res, nil
}

// makeHidden makes the hidden folder, or finds the one of an interrupted run.
// It refuses a link, which may point elsewhere.
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
		err = fmt.Errorf("%s exists and is not a folder; remove it", dir)
	}
	return err
}

// vacant returns an error if the folder's name is taken. With Replace, it
// accepts an existing folder, or a link to one, but nothing else.
func (m *job) vacant() error {
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
		return fmt.Errorf("%s is not a folder and was not replaced; choose another target", m.res.Dir)
	}
	return nil
}

// folderName returns the name of a snapshot's folder: its UDID or, if that is
// unknown, the name of the folder that was imported.
func folderName(s *repo.Snapshot) (string, error) {
	name := s.Device.UDID
	if name == "" {
		name = s.Source.Folder
	}
	if !blob.IsFolderName(name) {
		return "", fmt.Errorf("snapshot %s: %q cannot name a folder", s.ID.Short(), name)
	}
	return name, nil
}

// install gives the finished folder its name. A folder that is replaced is
// removed once the new name is durable.
func (m *job) install(partial string) error {
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
			err = fmt.Errorf("%w; the folder to be replaced is now %s", err, old)
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

// syncDir makes names in a folder durable, if the system can flush folders.
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

// job is one call of Write or WriteDecrypted.
type job struct {
	r    *repo.Repo
	opts Options
	res  *Result
	root *os.Root // the hidden folder; everything is opened through it

	folder *os.File   // the hidden folder, for createDirect; nil if it cannot be opened
	exact  exactModes // for createDirect

	newView   func() view
	layout    *layout
	keptFiles atomic.Int64
}

// walk calls fn for the entries of a snapshot as they will be written.
func (m *job) walk(ctx context.Context, s *repo.Snapshot, fn func(*tree.Entry) error) error {
	entryToWrite := m.newView()
	return m.r.Walk(ctx, s, "", func(e *tree.Entry) error {
		if e, ok := entryToWrite(e); ok {
			return fn(&e)
		}
		return nil
	})
}

// fill writes all entries below dir.
func (m *job) fill(ctx context.Context, s *repo.Snapshot, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	m.root = root
	if folder, err := root.Open("."); err == nil {
		defer folder.Close()
		m.folder = folder // without m.folder, writing is slower
	}
	m.opts.Progress.Enter("reading snapshot")
	if err := m.prepare(ctx, s); err != nil {
		return err
	}
	m.opts.Progress.Enter("writing files")
	m.opts.Progress.TotalFiles.Store(m.res.Files)
	m.opts.Progress.TotalBytes.Store(m.res.Bytes)
	if err := m.each(ctx, s, m.file); err != nil {
		return err
	}
	if err := m.checkComplete(ctx); err != nil {
		return err
	}
	if m.opts.Verify {
		m.opts.Progress.Enter("reading back")
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
func (m *job) finishDirs() error {
	for i := range slices.Backward(m.layout.dirs) {
		if err := m.setMeta(&m.layout.dirs[i], 0o700); err != nil {
			return err
		}
	}
	return nil
}
