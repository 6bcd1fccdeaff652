package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// read reads those files of a batch that must be read.
func (j *job) read(ctx context.Context, w *repo.ContentWriter, b *batch) error {
	for i := range b.files {
		f := &b.files[i]
		if !f.read {
			continue
		}
		err := j.readFile(ctx, w, f)
		var bad *sourceError
		switch {
		case err == nil:
		case errors.As(err, &bad) && j.opts.AllowIncomplete && ctx.Err() == nil:
			j.leaveOut(f, bad)
		case errors.As(err, &bad) && ctx.Err() == nil:
			return j.readError(bad)
		default:
			return err
		}
	}
	for i := range b.files {
		if b.files[i].entry.Kind == tree.File {
			j.opts.Progress.Files.Add(1)
		}
	}
	return nil
}

// leaveOut leaves out a file that cannot be read.
func (j *job) leaveOut(f *file, why error) {
	f.leftOut = true
	j.log.File(finding.Unreadable, fmt.Sprintf("%s: %v", nameOf(&f.entry), why))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.res.Files--
	j.res.Bytes -= f.size
}

// sourceError is an error of reading the folder, not of the repository.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// readFile stores a file and checks that it has not changed since it was listed.
func (j *job) readFile(ctx context.Context, w *repo.ContentWriter, f *file) error {
	path := f.entry.Path
	open, err := j.b.OpenFile(path)
	if err != nil {
		return &sourceError{j.openError(path, err)}
	}
	defer open.Close()
	src := sourceReader{f: open, size: f.size, left: f.size, p: j.opts.Progress, sum: j.newDigest(f)}
	err = j.storeFile(ctx, w, &src, f)
	switch {
	case src.err != nil:
		return &sourceError{src.err}
	case err != nil:
		return fmt.Errorf("%s: %w", j.onDisk(path), err)
	}
	info, err := open.Stat()
	if err != nil {
		return &sourceError{err}
	}
	if blob.Size(&f.entry) == f.size && info.Size() == f.size && tree.At(info.ModTime()) == f.modTime {
		j.judgeDigest(f, &src)
		return nil
	}
	err = j.changed(path, "its size or time has changed since it was listed")
	if !j.opts.AllowIncomplete {
		return err
	}
	// Without Stat, the next import reads the file again.
	f.entry.Stat = nil
	j.log.Note(finding.Changed, repo.Incomplete, err.Error())
	j.mu.Lock()
	defer j.mu.Unlock()
	j.res.Bytes += blob.Size(&f.entry) - f.size
	return nil
}

func (j *job) onDisk(path string) string {
	return filepath.Join(j.b.Dir(), filepath.FromSlash(path))
}

func (j *job) changed(path, what string) error {
	return fmt.Errorf("%s: %w", j.b.Dir(), &folder.ChangedError{Path: path, What: what})
}

// openError explains why a listed file cannot be opened.
func (j *job) openError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return j.changed(path, "it has vanished")
	}
	if info, lerr := os.Lstat(j.onDisk(path)); lerr == nil && !info.Mode().IsRegular() {
		return j.changed(path, "it is no longer a regular file")
	}
	return err
}

// sourceReader reads a file up to its listed size, so that reading ends even if
// the file grows. It keeps its error in err, to tell it from an error of
// storing.
type sourceReader struct {
	f    folder.Content
	size int64 // as listed
	left int64
	p    *blob.Progress
	sum  hash.Hash // of what was read, nil if not needed
	err  error
}

// rewind goes back to the start.
func (r *sourceReader) rewind() error {
	if _, err := r.f.Seek(0, io.SeekStart); err != nil {
		r.err = err
		return err
	}
	if r.sum != nil {
		r.sum.Reset()
	}
	r.p.Bytes.Add(r.left - r.size)
	r.left = r.size
	return nil
}

func (r *sourceReader) Read(b []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	if r.sum != nil {
		r.sum.Write(b[:n])
	}
	r.p.Bytes.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
