// Package extract writes files of a snapshot, as they are on the device, to a folder or
// to a tar or zip archive.
//
// Whatever names a snapshot has, nothing is written outside the folder or archive, and no
// two files get one path (package naming). A file appears complete or not at all. A file
// that cannot be read is left out and reported; the others are written. Links and empty
// folders of the device are not part of a snapshot's content and are not written.
package extract

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/naming"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/repo"
)

// ErrTargetExists says that the target is there already.
var ErrTargetExists = errors.New("target exists")

// Item is a file to write.
type Item struct {
	look.File
	Target  string // path in the folder or archive, with slashes
	Renamed bool   // Target differs from the name by more than escaped characters
}

// Plan chooses the paths of files.
func Plan(files []look.File) []Item {
	names := naming.New()
	items := make([]Item, len(files))
	for i := range files {
		f := &files[i]
		items[i].File = *f
		items[i].Target, items[i].Renamed = names.Path(naming.Full(f.Domain, f.Name, f.Path))
	}
	return items
}

// Lacking is a file that was not written.
type Lacking struct {
	Name string // on the device, with its domain
	Err  error  // repo.ErrDamaged or look.ErrNotDecrypted
}

// Result says what was written.
type Result struct {
	Files, Bytes int64
	Lacking      []Lacking
	OtherTimes   int64 // files whose time the file system does not set
}

// sink takes files one after another.
type sink interface {
	// put writes a file with this content. An error of the content is wrapped in
	// unreadable, and nothing of the file is left then.
	put(it *Item, c *look.Content) error
}

// unreadable is an error of what is read, not of what is written.
type unreadable struct{ error }

func (e unreadable) Unwrap() error { return e.error }

// write puts all files into a sink.
func write(ctx context.Context, items []Item, to sink, p *blob.Progress) (*Result, error) {
	if p == nil {
		p = &blob.Progress{}
	}
	p.Enter("writing files")
	p.TotalFiles.Store(int64(len(items)))
	for i := range items {
		p.TotalBytes.Add(items[i].Size)
	}
	res := &Result{}
	for i := range items {
		it := &items[i]
		n, err := one(ctx, it, to)
		var bad unreadable
		switch {
		case ctx.Err() != nil:
			return res, ctx.Err()
		case errors.As(err, &bad) && isLost(bad.error):
			res.Lacking = append(res.Lacking, Lacking{it.FullName(), bad.error})
		case err != nil:
			return res, fmt.Errorf("%s: %w", it.FullName(), err)
		default:
			res.Files++
			res.Bytes += n
		}
		p.Files.Add(1)
		p.Bytes.Add(it.Size)
	}
	return res, nil
}

func one(ctx context.Context, it *Item, to sink) (int64, error) {
	c, err := it.Open(ctx)
	if err != nil {
		return 0, unreadable{err}
	}
	return c.Size(), to.put(it, c)
}

// isLost reports whether an error is about one file only.
func isLost(err error) bool {
	return errors.Is(err, repo.ErrDamaged) || errors.Is(err, look.ErrNotDecrypted)
}

// copyTo copies a content, and tells errors of reading from those of writing.
func copyTo(w io.Writer, c *look.Content) error {
	to := &written{w: w}
	if _, err := io.Copy(to, c); err != nil && to.err == nil {
		return unreadable{err}
	}
	return to.err
}

// written remembers an error of its writer.
type written struct {
	w   io.Writer
	err error
}

func (w *written) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.err = cmp.Or(w.err, err)
	return n, err
}

// The times that all targets can express.
var (
	earliest = time.Unix(0, 0)
	latest   = time.Date(2106, 1, 1, 0, 0, 0, 0, time.UTC)
)

// timeOf returns the time of a file or, if that is beyond what targets can express, the
// nearest one.
func timeOf(it *Item) time.Time {
	switch t := it.ModTime; {
	case t.Before(earliest):
		return earliest
	case t.After(latest):
		return latest
	default:
		return t
	}
}
