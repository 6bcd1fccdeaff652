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
	"slices"
	"sync/atomic"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/internal/abandoned"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Options say how to write a folder.
type Options struct {
	// Replace replaces an existing folder when the new one is complete.
	Replace bool
	// Verify reads back all files and compares modes and times.
	Verify bool
	// Incomplete writes what is whole if the repository has lost a part of the
	// snapshot; see Result.Lacking.
	Incomplete bool
	Workers    int // goroutines that write, at least 1
	Progress   *blob.Progress
	// Abandoned is told of folders that interrupted runs have left in the target. Those
	// whose process has ended are removed.
	Abandoned func(abandoned.Folder)
	// Bytes writes a size for people. By default errors have numbers of bytes.
	Bytes func(int64) string
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
	// OtherTimes and OtherModes count the files and folders whose time or mode the
	// target's file system does not set. With Verify they also count those that it sets
	// to something else.
	OtherTimes int64 `json:"other_times,omitempty"`
	OtherModes int64 `json:"other_modes,omitempty"`
	// Unflushed says that the file system cannot flush files, so that a power cut may
	// damage them.
	Unflushed bool `json:"unflushed,omitempty"`

	// Lacking are files that were not written, because the repository has lost a part
	// of their content. LostParts counts the parts of the file tree that it has lost: it
	// is not known which files were in them. If there are any, the name of Dir ends with
	// mobilesync.IncompleteSuffix.
	Lacking   []Lacking `json:"lacking,omitempty"`
	LostParts int       `json:"lost_parts,omitempty"`
	// Beside lists files and folders that already had the name of an incomplete folder.
	// They were not replaced.
	Beside []string `json:"beside,omitempty"`

	// Of WriteDecrypted: files that have another path than their name says, and
	// files that were not written, because they could not be decrypted.
	Renamed      []Renamed `json:"renamed,omitempty"`
	NotDecrypted []string  `json:"not_decrypted,omitempty"`
}

// Renamed is a file that has another path than its name says.
type Renamed struct {
	Name string `json:"name"` // on the device, with its domain
	Path string `json:"path"` // below the folder written
}

// Write writes a snapshot as target/UDID, a backup folder as Finder, iTunes and
// idevicebackup2 know it. It writes to a hidden folder in target and renames
// the hidden folder at the end. After an interruption the hidden folder stays;
// the next call with the same snapshot and target keeps the complete files in
// it.
//
// If a part of the snapshot is lost, Write fails and writes no folder. With
// Options.Incomplete it writes everything else as target/UDID-incomplete, or as
// target/UDID-2-incomplete and so on if that exists and Options.Replace is not set.
func Write(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts Options) (*Result, error) {
	name, err := folderName(s)
	if err != nil {
		return nil, err
	}
	return write(ctx, r, s, target, name, asStored, opts)
}

// write writes the snapshot's entries, changed by a mapper, to the folder
// target/name.
func write(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target, name string, newMapper func(*lists) mapper, opts Options) (*Result, error) {
	if opts.Progress == nil {
		opts.Progress = &blob.Progress{}
	}
	m := &job{r: r, opts: opts, newMapper: newMapper, res: &Result{Dir: filepath.Join(target, name)}}
	if err := m.vacant(); err != nil {
		return nil, err
	}
	p, err := m.openPartial(ctx, s, target, name)
	if err != nil {
		return nil, fmt.Errorf("materialize %s: %w", s.ID.Short(), err)
	}
	if err := m.complete(ctx, s, p); err != nil {
		return nil, fmt.Errorf("materialize %s: %w", s.ID.Short(), p.fail(ctx, err, &m.opts))
	}
	_ = p.release() // the next run in this target tries again
	return m.res, nil
}

// complete fills the hidden folder, makes it durable and gives it its name.
func (m *job) complete(ctx context.Context, s *repo.Snapshot, p *partial) error {
	if err := m.fill(ctx, s, p.dir); err != nil {
		return err
	}
	m.res.Kept = m.keptFiles.Load()
	if err := m.concede(); err != nil {
		return err
	}
	m.opts.Progress.Enter("finishing")
	unflushed, err := syncTree(p.dir)
	if err != nil {
		return fmt.Errorf("make %s durable: %w", p.dir, err)
	}
	m.res.Unflushed = unflushed
	return m.install(p.dir)
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
	old, replaced := partial+oldSuffix, partial+replacedSuffix
	if m.opts.Replace {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		if err := m.proveRename(partial, old); err != nil {
			return err
		}
		if err := os.Rename(m.res.Dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := renameFolder(partial, m.res.Dir); err != nil {
		if m.opts.Replace {
			err = fmt.Errorf("%w; the folder to be replaced is now %s", err, old)
		}
		return err
	}
	if err := syncDir(filepath.Dir(m.res.Dir)); err != nil {
		return fmt.Errorf("make the name of %s durable: %w", m.res.Dir, err)
	}
	if !m.opts.Replace {
		return nil
	}
	// If it cannot be renamed, and this run is killed, later runs only report it.
	if os.RemoveAll(replaced) == nil && os.Rename(old, replaced) == nil {
		old = replaced
	}
	return os.RemoveAll(old)
}

// proveRename does nothing unless there is a folder to be replaced. It renames the hidden
// folder and then back again: if the file system loses the content of renamed folders, it
// loses that of the hidden folder, which can be written again.
func (m *job) proveRename(partial, other string) error {
	if _, err := os.Lstat(m.res.Dir); err != nil {
		return nil
	}
	if err := renameFolder(partial, other); err != nil {
		return fmt.Errorf("%w; %s is as before", err, m.res.Dir)
	}
	return renameFolder(other, partial)
}

// renameFolder renames a folder and checks that its content came along: some FUSE file
// systems lose it.
func renameFolder(from, to string) error {
	before, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	after, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	return keptContent(to, len(before), len(after))
}

func keptContent(dir string, before, after int) error {
	if after < before {
		return fmt.Errorf("%s has %d of %d files and folders after it was renamed: this file system loses them; remove the folder and choose another target", dir, after, before)
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

	newMapper func(*lists) mapper
	paths     *pathSet
	keptFiles atomic.Int64
	refused   refused
	lost      losses

	otherTimes, otherModes atomic.Int64 // see Result
}

// walk calls fn for the entries of a snapshot as they will be written.
func (m *job) walk(ctx context.Context, s *repo.Snapshot, fn func(*tree.Entry) error) error {
	return m.walkListing(ctx, s, nil, fn)
}

// walkListing is like walk, and adds what the mapper reports to l.
func (m *job) walkListing(ctx context.Context, s *repo.Snapshot, l *lists, fn func(*tree.Entry) error) error {
	entryToWrite := m.newMapper(l)
	return m.walkEntries(ctx, s, func(e *tree.Entry) error {
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
	if err := m.eachFile(ctx, s, m.writeWhole); err != nil {
		return err
	}
	if err := m.checkComplete(ctx); err != nil {
		return err
	}
	if m.opts.Verify {
		m.opts.Progress.Enter("reading back")
		m.opts.Progress.Files.Store(0)
		m.opts.Progress.Bytes.Store(0)
		if err := m.eachFile(ctx, s, m.verifyWhole); err != nil {
			return err
		}
	}
	if err := m.finishDirs(); err != nil {
		return err
	}
	m.res.OtherTimes, m.res.OtherModes = m.refused.times.Load(), m.refused.modes.Load()
	if !m.opts.Verify {
		return nil
	}
	for i := range m.paths.dirs {
		if err := m.verifyMeta(&m.paths.dirs[i], 0o700); err != nil {
			return err
		}
	}
	m.res.Verified = true
	m.res.OtherTimes, m.res.OtherModes = m.otherTimes.Load(), m.otherModes.Load()
	return nil
}

// finishDirs sets modes and times of folders, the deepest first, after
// everything in them is written.
func (m *job) finishDirs() error {
	for i := range slices.Backward(m.paths.dirs) {
		if err := m.setMeta(&m.paths.dirs[i], 0o700); err != nil {
			return err
		}
	}
	return nil
}
