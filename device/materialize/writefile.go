package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// eachFile calls fn for all files of a snapshot, and counts those for which it succeeds.
func (m *job) eachFile(ctx context.Context, s *repo.Snapshot, fn func(ctx context.Context, e *tree.Entry) error) error {
	walk := func(ctx context.Context, add func(*tree.Entry) error) error { return m.walk(ctx, s, add) }
	return blob.EachFile(ctx, m.opts.Workers, walk, func(ctx context.Context, e *tree.Entry) error {
		if err := fn(ctx, e); err != nil {
			return fmt.Errorf("%s: %w", describe(e), err)
		}
		m.opts.Progress.Files.Add(1)
		return nil
	})
}

// describe names an entry for people.
func describe(e *tree.Entry) string {
	if e.Domain == "" {
		return e.Path
	}
	return fmt.Sprintf("%s (%s/%s)", e.Path, e.Domain, e.Name)
}

// writeFile writes a file, unless an interrupted run left it complete.
func (m *job) writeFile(ctx context.Context, e *tree.Entry) error {
	path := filepath.FromSlash(e.Path)
	mode := modeOf(e, 0o600)
	f, err := m.create(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		// The snapshot may lack entries of folders.
		if err := m.root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = m.create(path, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		same, err := m.same(ctx, e)
		if err != nil {
			return err
		}
		if same {
			m.keep(e)
			return m.setMeta(e, 0o600)
		}
		if err := m.root.Remove(path); err != nil {
			return err
		}
		if f, err = m.create(path, mode); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	err = explain(blob.Write(ctx, m.r, progressWriter{f, m.opts.Progress}, e), blob.Size(e), m.opts.bytes)
	if err == nil {
		err = f.finish(mode, e.ModTime.Time(), &m.refused)
	}
	if cerr := filesystem.Close(f); err == nil {
		err = cerr
	}
	return err
}

// created is a new file in the hidden folder.
type created interface {
	io.WriteCloser
	// finish sets the times, and sets the mode if the file does not have it yet. It
	// counts what the file system refuses.
	finish(mode fs.FileMode, mtime time.Time, refused *refused) error
}

// refused counts the files and folders whose mode or time a file system does not set.
// FAT drives and network shares may have neither.
type refused struct{ modes, times atomic.Int64 }

// mode counts an error of setting a mode, and returns nil, if the file system refuses
// modes.
func (r *refused) mode(err error) error { return countRefused(&r.modes, err) }

// time does the same for an error of setting times.
func (r *refused) time(err error) error { return countRefused(&r.times, err) }

func countRefused(n *atomic.Int64, err error) error {
	if err != nil && filesystem.IsRefused(err) {
		n.Add(1)
		return nil
	}
	return err
}

// create creates a file, with createDirect if that works. It fails with
// fs.ErrExist if the name is taken and fs.ErrNotExist if the folder is missing.
func (m *job) create(path string, mode fs.FileMode) (created, error) {
	f, err := createDirect(m.folder, path, mode, &m.exact)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	file, err := m.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return rootFile{file, m.root, path}, nil
}

// rootFile is a file that was created through os.Root.
type rootFile struct {
	*os.File
	root *os.Root
	path string
}

func (f rootFile) finish(mode fs.FileMode, mtime time.Time, refused *refused) error {
	return setMeta(f.root, f.path, mode, 0o600, tree.At(mtime), refused)
}

// same reports whether the file on disk has the content of an entry.
func (m *job) same(ctx context.Context, e *tree.Entry) (bool, error) {
	path := filepath.FromSlash(e.Path)
	info, err := m.root.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != blob.Size(e) {
		return false, err
	}
	f, err := m.root.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return blob.Same(ctx, m.r, f, e)
}

func (m *job) keep(e *tree.Entry) {
	m.opts.Progress.Bytes.Add(blob.Size(e))
	m.keptFiles.Add(1)
}

// verify reads a file back.
func (m *job) verify(ctx context.Context, e *tree.Entry) error {
	same, err := m.same(ctx, e)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: the file on disk differs from what was written; check the disk", ErrVerify)
	}
	if err := m.verifyMeta(e, 0o600); err != nil {
		return err
	}
	m.opts.Progress.Bytes.Add(blob.Size(e))
	return nil
}

// verifyMeta compares the mode and the mtime of a file or folder with what was set.
// If they differ, it sets them once more. If they still differ, the file system
// cannot hold them, which is counted.
func (m *job) verifyMeta(e *tree.Entry, least fs.FileMode) error {
	path := filepath.FromSlash(e.Path)
	mode := modeOf(e, least)
	differ := func() (ofTime, ofMode bool, err error) {
		info, err := m.root.Lstat(path)
		if err != nil {
			return false, false, err
		}
		// Windows has no permission bits.
		return tree.At(info.ModTime()) != e.ModTime, runtime.GOOS != "windows" && info.Mode().Perm() != mode, nil
	}
	ofTime, ofMode, err := differ()
	if err != nil || !ofTime && !ofMode {
		return err
	}
	// If setting fails, the value still differs and is counted.
	_ = filesystem.Retry(func() error { return m.root.Chmod(path, mode) })
	_ = setTime(m.root, path, e.ModTime)
	if ofTime, ofMode, err = differ(); err != nil {
		return err
	}
	if ofTime {
		m.otherTimes.Add(1)
	}
	if ofMode {
		m.otherModes.Add(1)
	}
	return nil
}

// modeOf returns the mode of an entry plus the bits of least, which the owner
// needs.
func modeOf(e *tree.Entry, least fs.FileMode) fs.FileMode {
	return fs.FileMode(e.Mode)&fs.ModePerm | least
}

// setMeta sets the mode and the mtime of an existing file or folder.
func (m *job) setMeta(e *tree.Entry, least fs.FileMode) error {
	return setMeta(m.root, filepath.FromSlash(e.Path), modeOf(e, least), least, e.ModTime, &m.refused)
}

// setMeta sets the mode, unless it is the one of new files, and the mtime. It counts
// what the file system refuses.
func setMeta(root *os.Root, path string, mode, ofNew fs.FileMode, mtime tree.Time, refused *refused) error {
	if mode != ofNew {
		err := filesystem.Retry(func() error { return root.Chmod(path, mode) })
		if err := refused.mode(err); err != nil {
			return err
		}
	}
	return refused.time(setTime(root, path, mtime))
}

// setTime sets the times of a file or folder. If neither Go nor the system can
// express the time, it sets the nearest that an int64 of nanoseconds can hold.
func setTime(root *os.Root, path string, mtime tree.Time) error {
	n, wide := mtime.Nanosecond()
	if wide && setWideTime(root, path, mtime.Time()) == nil {
		return nil
	}
	t := time.Unix(0, n)
	return filesystem.Retry(func() error { return root.Chtimes(path, t, t) })
}

// progressWriter counts written bytes.
type progressWriter struct {
	w io.Writer
	p *blob.Progress
}

func (w progressWriter) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.p.Bytes.Add(int64(n))
	return n, err
}
