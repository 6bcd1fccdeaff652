package look

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/stored"
)

// Content reads a file as it is on the device. Every byte of it was authenticated; the
// error repo.ErrDamaged says that the repository has lost some. Several goroutines may use
// ReadAt, but only one may use Read and Seek.
type Content struct {
	*io.SectionReader
	whole func(io.Writer) error // writes all bytes; nil if nothing is faster than Read
}

// WriteTo writes what is left to read. It implements io.WriterTo.
func (c *Content) WriteTo(w io.Writer) (int64, error) {
	if at, err := c.Seek(0, io.SeekCurrent); err != nil || at > 0 || c.whole == nil {
		return io.Copy(w, struct{ io.Reader }{c.SectionReader})
	}
	if err := c.whole(w); err != nil {
		return 0, err
	}
	return c.Seek(0, io.SeekEnd)
}

// Open opens the file. The reader uses ctx for all of its reads, and needs no Close. The
// error is ErrLocked or ErrNotDecrypted if the content cannot be decrypted.
func (f *File) Open(ctx context.Context) (*Content, error) {
	c, err := f.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.FullName(), err)
	}
	return c, nil
}

func (f *File) open(ctx context.Context) (*Content, error) {
	key, encrypted, err := f.fileKey(ctx)
	if err != nil {
		return nil, err
	}
	e := &f.Entry
	reader, err := f.rd.repo.NewContentReader(ctx, &e.Content)
	if err != nil {
		return nil, err
	}
	if !encrypted {
		return &Content{io.NewSectionReader(reader, 0, reader.Size()), func(w io.Writer) error { return f.rd.repo.WriteContent(ctx, w, &e.Content) }}, nil
	}
	plain, size, err := keybag.DecrypterAt(reader, reader.Size(), key)
	if errors.Is(err, keybag.ErrPadding) {
		return nil, fmt.Errorf("%w: %w", ErrNotDecrypted, err)
	}
	if err != nil {
		return nil, err
	}
	return &Content{io.NewSectionReader(plain, 0, size), nil}, nil
}

// fileKey returns the key that the stored content is encrypted with, if it is encrypted.
func (f *File) fileKey(ctx context.Context) (key keybag.FileKey, encrypted bool, err error) {
	e, s := &f.Entry, f.rd.Snapshot
	if e.Encryption != nil || e.Content.Size == 0 || !s.Encrypted || !isBlobPath(e.Path) && e.Path != mobilesync.ManifestDB {
		return key, false, nil
	}
	b, records, err := f.rd.rows(ctx)
	if err != nil {
		return key, false, err
	}
	rec := row(b, records, f)
	if b.State(e, rec) != stored.Encrypted {
		return key, false, nil
	}
	if !b.Unlocked() {
		if Locked(s) {
			return key, true, ErrLocked
		}
		return key, true, ErrNotDecrypted
	}
	if rec == nil {
		if key, encrypted = b.ManifestDBKey(); e.Path == mobilesync.ManifestDB && encrypted {
			return key, true, nil
		}
		return key, true, ErrNotDecrypted
	}
	if key, err = b.FileKey(rec); err != nil {
		err = fmt.Errorf("%w: %w", ErrNotDecrypted, err)
	}
	return key, true, err
}

// row returns the row of a file, or nil.
func row(b *stored.Backup, records *manifest.Records, f *File) *manifest.Record {
	if at := b.File(&f.Entry, records); at.Row >= 0 {
		rec := records.At(at.Row)
		return &rec
	}
	return nil
}
