package transfer

import (
	"bufio"
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
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := m.root.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		// Entries of folders may be missing from what somebody else wrote.
		if err := m.root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = m.root.OpenFile(path, flags, 0o600)
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
		if f, err = m.root.OpenFile(path, flags, 0o600); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	err = m.write(ctx, f, e)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return m.setMeta(e, 0o600)
}

// write puts the content into a new file. Small pieces are gathered, large
// ones pass through.
func (m *materializer) write(ctx context.Context, f *os.File, e *tree.Entry) error {
	w := progressWriter{f, m.opts.Progress}
	if len(e.Content.IDs) < 2 || e.Seal != nil {
		return writeBlob(ctx, m.r, w, e)
	}
	buf := bufio.NewWriterSize(w, 256<<10)
	if err := writeBlob(ctx, m.r, buf, e); err != nil {
		return err
	}
	return buf.Flush()
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

// setMeta sets the mode, with what the owner needs added, and the mtime.
func (m *materializer) setMeta(e *tree.Entry, least fs.FileMode) error {
	path := filepath.FromSlash(e.Path)
	mode := fs.FileMode(e.Mode)&fs.ModePerm | least
	if mode != least {
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
