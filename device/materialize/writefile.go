package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// each calls do for all files of a snapshot. Neighbouring files share blocks,
// so each goroutine gets sequences of neighbours.
func (m *job) each(ctx context.Context, s *repo.Snapshot, do func(ctx context.Context, e *tree.Entry) error) error {
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan []tree.Entry)
	g.Go(func() error {
		defer close(work)
		var batch []tree.Entry
		size := int64(0)
		send := func() error {
			select {
			case work <- batch:
				batch, size = nil, 0
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		err := m.walk(gctx, s, func(e *tree.Entry) error {
			if e.Kind != tree.File {
				return nil
			}
			batch = append(batch, *e)
			size += blob.Size(e)
			if len(batch) >= blob.BatchFiles || size >= blob.BatchBytes {
				return send()
			}
			return nil
		})
		if err != nil {
			return err
		}
		return send()
	})
	for range max(1, m.opts.Workers) {
		g.Go(func() error {
			for batch := range work {
				for i := range batch {
					// Reading from the cache does not check ctx.
					if err := gctx.Err(); err != nil {
						return err
					}
					if err := do(gctx, &batch[i]); err != nil {
						return fmt.Errorf("%s: %w", describe(&batch[i]), err)
					}
					m.opts.Progress.Files.Add(1)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// describe names an entry for people.
func describe(e *tree.Entry) string {
	if e.Domain == "" {
		return e.Path
	}
	return fmt.Sprintf("%s (%s/%s)", e.Path, e.Domain, e.Name)
}

// file writes a file, unless an interrupted run left it complete.
func (m *job) file(ctx context.Context, e *tree.Entry) error {
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
	err = blob.Write(ctx, m.r, progressWriter{f, m.opts.Progress}, e)
	if err == nil {
		err = f.finish(mode, time.Unix(0, e.ModTime))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// created is a new file in the hidden folder.
type created interface {
	io.WriteCloser
	// finish sets the times, and sets the mode if the file does not have it yet.
	finish(mode fs.FileMode, mtime time.Time) error
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

func (f rootFile) finish(mode fs.FileMode, mtime time.Time) error {
	if mode != 0o600 {
		if err := f.root.Chmod(f.path, mode); err != nil {
			return err
		}
	}
	return f.root.Chtimes(f.path, mtime, mtime)
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
	m.opts.Progress.Bytes.Add(blob.Size(e))
	return nil
}

// modeOf returns the mode of an entry plus the bits of least, which the owner
// needs.
func modeOf(e *tree.Entry, least fs.FileMode) fs.FileMode {
	return fs.FileMode(e.Mode)&fs.ModePerm | least
}

// setMeta sets the mode and the mtime of an existing file or folder.
func (m *job) setMeta(e *tree.Entry, least fs.FileMode) error {
	path := filepath.FromSlash(e.Path)
	if mode := modeOf(e, least); mode != least {
		if err := m.root.Chmod(path, mode); err != nil {
			return err
		}
	}
	t := time.Unix(0, e.ModTime)
	return m.root.Chtimes(path, t, t)
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
