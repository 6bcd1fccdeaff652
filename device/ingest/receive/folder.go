package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo/tree"
)

var errUnsupported = fmt.Errorf("%w here", errors.ErrUnsupported)

// below returns a path that the device sent, relative to the device's folder.
func (r *Receiver) below(path string) (string, error) {
	rest, ok := blob.Below(r.opts.UDID, path)
	if !ok {
		return "", fmt.Errorf("%s is not below %s: %w", path, r.opts.UDID, errUnsupported)
	}
	return rest, nil
}

// Open implements backup2.Folder.
func (r *Receiver) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	p, err := r.below(path)
	if err != nil {
		return nil, err
	}
	return r.open(ctx, p)
}

func (r *Receiver) open(ctx context.Context, p string) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.names.Lookup(p)
	switch {
	case !ok:
		return nil, fmt.Errorf("open %s: %w", p, fs.ErrNotExist)
	case f.File == nil:
		e, err := r.names.Entry(ctx, f)
		if err != nil {
			return nil, err
		}
		as := *e
		as.ModTime = tree.At(r.now) // as List reports it
		return blob.Open(ctx, r.repo, &as)
	case f.File.Spooled():
		section, err := r.spool.Section(f.File.At, f.File.Size)
		if err != nil {
			return nil, err
		}
		return &spooledFile{section, blob.NewInfo(f.File.Size, r.now)}, nil
	}
	if err := r.makeReadable(f.File); err != nil {
		return nil, err
	}
	c := r.names.Content(f.File)
	return blob.OpenContent(ctx, r.repo, &c, r.now)
}

// spooledFile reads a file in the spool.
type spooledFile struct {
	*io.SectionReader
	info blob.Info
}

func (s *spooledFile) Stat() (fs.FileInfo, error) { return s.info, nil }
func (s *spooledFile) Close() error               { return nil }

// List implements backup2.Folder.
func (r *Receiver) List(_ context.Context, path string) ([]backup2.Item, error) {
	p, err := r.below(path)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p == "" && r.names.Empty() {
		return nil, fmt.Errorf("list %s: %w", path, fs.ErrNotExist)
	}
	items, err := r.names.List(p)
	if err != nil {
		return nil, err
	}
	out := make([]backup2.Item, len(items))
	for i, it := range items {
		out[i] = backup2.Item{Name: it.Name, Dir: it.Dir != nil, Size: it.Size, ModTime: r.now}
		if it.Dir != nil {
			out[i].ModTime = it.Dir.ModTime.Time().UTC()
		}
	}
	return out, nil
}

// Mkdir implements backup2.Folder.
func (r *Receiver) Mkdir(_ context.Context, path string) error {
	p, err := r.below(path)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names.Mkdir(p, r.now)
}

// Move implements backup2.Folder, for files that this backup has sent; devices
// move no others.
func (r *Receiver) Move(ctx context.Context, from, to string) error {
	src, err := r.below(from)
	if err != nil {
		return err
	}
	dst, err := r.below(to)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.changing(ctx, src); err != nil {
		return err
	}
	if err := r.changing(ctx, dst); err != nil {
		return err
	}
	if err := r.names.Move(src, dst, r.now); err != nil {
		return err
	}
	r.note(dst)
	return nil
}

// Remove implements backup2.Folder.
func (r *Receiver) Remove(ctx context.Context, path string) error {
	p, err := r.below(path)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.changing(ctx, p); err != nil {
		return err
	}
	r.complaints.drop(p)
	if !r.names.Remove(p) {
		return fmt.Errorf("remove %s: %w", path, fs.ErrNotExist)
	}
	return nil
}

// Copy implements backup2.Folder, for files that this backup has sent. Devices
// copy entire folders, and only before a restore.
func (r *Receiver) Copy(_ context.Context, from, to string) error {
	src, err := r.below(from)
	if err != nil {
		return err
	}
	dst, err := r.below(to)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.names.Number(src)
	if !ok {
		return fmt.Errorf("copy %s: %w", from, errUnsupported)
	}
	if err := r.names.Put(dst, f, r.now); err != nil {
		return err
	}
	r.note(dst)
	return nil
}
