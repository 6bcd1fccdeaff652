package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// each calls do for all files of a snapshot, runs of neighbours in one
// goroutine: they share blocks.
func (m *materializer) each(ctx context.Context, s *repo.Snapshot, do func(ctx context.Context, e *tree.Entry) error) error {
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan []tree.Entry)
	g.Go(func() error {
		defer close(work)
		var run []tree.Entry
		size := int64(0)
		hand := func() error {
			select {
			case work <- run:
				run, size = nil, 0
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		err := m.walk(gctx, s, func(e *tree.Entry) error {
			if e.Kind != tree.File {
				return nil
			}
			run = append(run, *e)
			size += blobSize(e)
			if len(run) >= batchFiles || size >= batchBytes {
				return hand()
			}
			return nil
		})
		if err != nil {
			return err
		}
		return hand()
	})
	for range max(1, m.opts.Workers) {
		g.Go(func() error {
			for run := range work {
				for i := range run {
					// Content from the cache does not ask.
					if err := gctx.Err(); err != nil {
						return err
					}
					if err := do(gctx, &run[i]); err != nil {
						return fmt.Errorf("%s: %w", describe(&run[i]), err)
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

// file writes one file unless an interrupted run left it whole.
func (m *materializer) file(ctx context.Context, e *tree.Entry) error {
	path := filepath.FromSlash(e.Path)
	mode := modeOf(e, 0o600)
	f, err := m.create(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		// Entries of folders may be missing from what somebody else wrote.
		if err := m.root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = m.create(path, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		whole, err := m.whole(ctx, e)
		if err != nil {
			return err
		}
		if whole {
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
	err = writeBlob(ctx, m.r, progressWriter{f, m.opts.Progress}, e)
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
	// finish sets what writing changes, and the mode unless the file has it.
	finish(mode fs.FileMode, mtime time.Time) error
}

// create makes a new file, in the short way where there is one. It fails with
// fs.ErrExist if something has the name and fs.ErrNotExist if its folder is not
// there.
func (m *materializer) create(path string, mode fs.FileMode) (created, error) {
	f, err := createDirect(m.folder, path, mode, &m.exact)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	long, err := m.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return rootFile{long, m.root, path}, nil
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

// whole reports whether the file on disk has the content of an entry.
func (m *materializer) whole(ctx context.Context, e *tree.Entry) (bool, error) {
	path := filepath.FromSlash(e.Path)
	info, err := m.root.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != blobSize(e) {
		return false, err
	}
	f, err := m.root.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return sameBlob(ctx, m.r, f, e)
}

func (m *materializer) keep(e *tree.Entry) {
	m.opts.Progress.Bytes.Add(blobSize(e))
	m.keptFiles.Add(1)
}

// verify reads a file back.
func (m *materializer) verify(ctx context.Context, e *tree.Entry) error {
	same, err := m.whole(ctx, e)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: what is on disk is not what was written; check the disk", ErrVerify)
	}
	m.opts.Progress.Bytes.Add(blobSize(e))
	return nil
}

// modeOf is the mode to give an entry: with what the owner needs added.
func modeOf(e *tree.Entry, least fs.FileMode) fs.FileMode {
	return fs.FileMode(e.Mode)&fs.ModePerm | least
}

// setMeta sets the mode and the mtime of what is there already.
func (m *materializer) setMeta(e *tree.Entry, least fs.FileMode) error {
	path := filepath.FromSlash(e.Path)
	if mode := modeOf(e, least); mode != least {
		if err := m.root.Chmod(path, mode); err != nil {
			return err
		}
	}
	t := time.Unix(0, e.ModTime)
	return m.root.Chtimes(path, t, t)
}

// progressWriter counts what is written.
type progressWriter struct {
	w io.Writer
	p *Progress
}

func (w progressWriter) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.p.Bytes.Add(int64(n))
	return n, err
}
