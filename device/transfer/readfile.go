package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// read fills in the content of a batch's entries that have to be read.
func (im *importer) read(ctx context.Context, lane *repo.ContentWriter, b *batch) error {
	p := im.opts.Progress
	for _, i := range b.read {
		e := &b.entries[i]
		err := im.readFile(ctx, lane, e, b.stats[i], b.rows[i], b.before[i])
		var bad *sourceError
		switch {
		case err == nil:
		case errors.As(err, &bad) && im.opts.AllowIncomplete && ctx.Err() == nil:
			im.leaveOut(b, i, bad)
		default:
			return err
		}
	}
	for i := range b.entries {
		if b.entries[i].Kind == tree.File {
			p.Files.Add(1)
		}
	}
	return nil
}

// leaveOut goes on without a file that cannot be read.
func (im *importer) leaveOut(b *batch, i int, why error) {
	if b.gone == nil {
		b.gone = map[int]bool{}
	}
	b.gone[i] = true
	im.mark(fmt.Sprintf("left out: %v", why))
	im.mu.Lock()
	defer im.mu.Unlock()
	im.res.Files--
	im.res.Bytes -= b.stats[i].size
}

// sourceError is a failure of the folder, not of the repository.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// readFile stores one file and checks that it is the one that was listed.
func (im *importer) readFile(ctx context.Context, lane *repo.ContentWriter, e *tree.Entry, listed fileStat, row int32, before *tree.Entry) error {
	f, err := im.b.OpenFile(e.Path)
	if err != nil {
		return &sourceError{im.opening(e.Path, err)}
	}
	defer f.Close()
	src := sourceReader{f: f, size: listed.size, left: listed.size, p: im.opts.Progress}
	err = im.storeFile(ctx, lane, f, &src, e, row, before)
	switch {
	case src.err != nil:
		return &sourceError{src.err}
	case err != nil:
		return fmt.Errorf("%s: %w", im.onDisk(e.Path), err)
	}
	info, err := f.Stat()
	if err != nil {
		return &sourceError{err}
	}
	if blobSize(e) == listed.size && info.Size() == listed.size && info.ModTime().UnixNano() == listed.modTime {
		return nil
	}
	err = im.changed(e.Path, "has another size or time than when it was listed")
	if !im.opts.AllowIncomplete {
		return err
	}
	// It is taken as it was met, and read again next time.
	e.Stat = nil
	im.mark(err.Error())
	im.mu.Lock()
	defer im.mu.Unlock()
	im.res.Bytes += blobSize(e) - listed.size
	return nil
}

func (im *importer) onDisk(path string) string {
	return filepath.Join(im.b.Dir(), filepath.FromSlash(path))
}

func (im *importer) changed(path, what string) error {
	return fmt.Errorf("%s: %w", im.b.Dir(), &folder.ChangedError{Path: path, What: what})
}

// opening explains why a file that was listed a moment ago cannot be opened.
func (im *importer) opening(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return im.changed(path, "vanished")
	}
	if info, lerr := os.Lstat(im.onDisk(path)); lerr == nil && !info.Mode().IsRegular() {
		return im.changed(path, "is no regular file any more")
	}
	return err
}

// sourceReader reads no more of a file than was listed, so that one that grows
// for ever ends, and keeps its errors apart from those of storing.
type sourceReader struct {
	f    folder.Content
	size int64 // as listed
	left int64
	p    *Progress
	err  error
}

// rewind begins anew after the file was set back to its start.
func (r *sourceReader) rewind() {
	r.p.Bytes.Add(r.left - r.size)
	r.left = r.size
}

func (r *sourceReader) Read(b []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	r.p.Bytes.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
