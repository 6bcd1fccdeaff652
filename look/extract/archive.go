package extract

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/look"
)

// Format is a format of archives.
type Format string

// The formats.
const (
	Tar Format = "tar"
	Zip Format = "zip"
)

// Archive writes files as an archive. An archive that could not be completed lacks its
// end, so that programs refuse it.
//
// A file in an archive cannot be taken back. So Archive reads a file completely before it
// writes the first byte of it; those of more than maxBuffer bytes are read twice.
func Archive(ctx context.Context, items []Item, w io.Writer, format Format, p *blob.Progress) (*Result, error) {
	a := &archive{}
	var end func() error
	switch format {
	case Tar:
		t := tar.NewWriter(w)
		a.begin, end = beginTar(t), t.Close
	case Zip:
		z := zip.NewWriter(w)
		a.begin, end = beginZip(z), z.Close
	default:
		return nil, fmt.Errorf("%q is not a format of archives", format)
	}
	res, err := write(ctx, items, a, p)
	if err == nil {
		err = end()
	}
	return res, err
}

// ArchiveFile writes an archive to a file, which must not exist. The file appears when it
// is complete.
func ArchiveFile(ctx context.Context, items []Item, name string, format Format, p *blob.Progress) (*Result, error) {
	if err := CheckFile(name); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".snap-*.partial")
	if err != nil {
		return nil, err
	}
	res, err := Archive(ctx, items, f, format, p)
	if err == nil {
		err = filesystem.SyncIfSupported(f)
	}
	if cerr := filesystem.Close(f); err == nil {
		err = cerr
	}
	if err == nil {
		err = CheckFile(name) // it may have appeared
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error says more than this one
	}
	return res, err
}

// CheckFile returns ErrTargetExists if there is a file of this name.
func CheckFile(name string) error {
	_, err := os.Lstat(name)
	if err == nil {
		return fmt.Errorf("%s: %w", name, ErrTargetExists)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// maxBuffer bounds the bytes of a file that are held in memory.
const maxBuffer = 8 << 20

// archive is a sink that writes an archive.
type archive struct {
	begin func(it *Item, size int64) (io.Writer, error)
	buf   bytes.Buffer
}

func (a *archive) put(it *Item, c *look.Content) error {
	a.buf.Reset()
	var checked io.Writer = &a.buf
	if c.Size() > maxBuffer {
		checked = io.Discard
	}
	if err := copyTo(checked, c); err != nil {
		return err
	}
	w, err := a.begin(it, c.Size())
	if err != nil {
		return err
	}
	if c.Size() <= maxBuffer {
		_, err = w.Write(a.buf.Bytes())
		return err
	}
	if _, err = c.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var bad unreadable
	if err = copyTo(w, c); errors.As(err, &bad) {
		// The beginning is in the archive already, so this file cannot be left out.
		return fmt.Errorf("it could be read a moment ago: %w", bad.error)
	}
	return err
}

func beginTar(t *tar.Writer) func(*Item, int64) (io.Writer, error) {
	return func(it *Item, size int64) (io.Writer, error) {
		return t, t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: it.Target, Size: size, Mode: 0o600, ModTime: timeOf(it), Format: tar.FormatPAX})
	}
}

// compressed has the ends of the names of files that no compression makes smaller.
var compressed = map[string]bool{".jpg": true, ".jpeg": true, ".heic": true, ".png": true, ".gif": true, ".mov": true, ".mp4": true, ".m4v": true, ".m4a": true, ".mp3": true, ".zip": true, ".gz": true}

func beginZip(z *zip.Writer) func(*Item, int64) (io.Writer, error) {
	return func(it *Item, _ int64) (io.Writer, error) {
		h := &zip.FileHeader{Name: it.Target, Method: zip.Deflate, Modified: timeOf(it).UTC()}
		if compressed[strings.ToLower(path.Ext(it.Target))] {
			h.Method = zip.Store
		}
		h.SetMode(0o600)
		return z.CreateHeader(h)
	}
}
