package virtual

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/snap-backup/snap/device/protocol/backup2"
)

// Open implements backup2.Folder.
func (n *Run) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	p, err := n.below(path)
	if err != nil {
		return nil, err
	}
	return n.open(ctx, p)
}

func (n *Run) open(ctx context.Context, p string) (io.ReadCloser, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.names.lookup(p)
	switch {
	case !ok:
		return nil, fmt.Errorf("open %s: %w", p, fs.ErrNotExist)
	case f.file == nil:
		e := f.entry
		if e == nil {
			var err error
			if e, err = n.names.old.entry(ctx, f.blob); err != nil {
				return nil, err
			}
		}
		as := *e
		as.ModTime = n.now.UnixNano() // what lists say, too
		return openEntry(ctx, n.r, &as)
	case f.file.state&spooled != 0:
		section, err := n.spool.section(f.file.at, f.file.size)
		if err != nil {
			return nil, err
		}
		return &spoolContent{section, fileInfo{f.file.size, n.now}}, nil
	}
	// It may be on its way to a pack still.
	if err := n.settle(f.file); err != nil {
		return nil, err
	}
	c := n.names.content(f.file)
	return openContent(ctx, n.r, &c, n.now)
}

// spoolContent reads a file in the spool.
type spoolContent struct {
	*io.SectionReader
	info fileInfo
}

func (s *spoolContent) Stat() (fs.FileInfo, error) { return s.info, nil }
func (s *spoolContent) Close() error               { return nil }

// List implements backup2.Folder.
func (n *Run) List(_ context.Context, path string) ([]backup2.Item, error) {
	p, err := n.below(path)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if p == "" && len(n.names.dirs) == 0 && len(n.names.others) == 0 {
		return nil, fmt.Errorf("list %s: %w", path, fs.ErrNotExist)
	}
	items, err := n.names.list(p)
	if err != nil {
		return nil, err
	}
	out := make([]backup2.Item, len(items))
	for i, it := range items {
		out[i] = backup2.Item{Name: it.name, Dir: it.dir != nil, Size: it.size, ModTime: n.now}
		if it.dir != nil {
			out[i].ModTime = time.Unix(0, it.dir.ModTime).UTC()
		}
	}
	return out, nil
}

// Mkdir implements backup2.Folder.
func (n *Run) Mkdir(_ context.Context, path string) error {
	p, err := n.below(path)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names.mkdir(p, n.now)
}

// Move implements backup2.Folder, for files that this backup has brought:
// devices move no others.
func (n *Run) Move(ctx context.Context, from, to string) error {
	src, err := n.below(from)
	if err != nil {
		return err
	}
	dst, err := n.below(to)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.changing(ctx, src); err != nil {
		return err
	}
	if err := n.changing(ctx, dst); err != nil {
		return err
	}
	if err := n.names.move(src, dst, n.now); err != nil {
		return err
	}
	n.note(dst)
	return nil
}

// Remove implements backup2.Folder.
func (n *Run) Remove(ctx context.Context, path string) error {
	p, err := n.below(path)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.changing(ctx, p); err != nil {
		return err
	}
	if !n.names.remove(p) {
		return fmt.Errorf("remove %s: %w", path, fs.ErrNotExist)
	}
	return nil
}

// Copy implements backup2.Folder, for files that this backup has brought.
// Devices copy whole folders, and only before a restore.
func (n *Run) Copy(_ context.Context, from, to string) error {
	src, err := n.below(from)
	if err != nil {
		return err
	}
	dst, err := n.below(to)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.names.numberOf(src)
	if !ok {
		return fmt.Errorf("copy %s: %w", from, errForeign)
	}
	if err := n.names.put(dst, f, n.now); err != nil {
		return err
	}
	n.note(dst)
	return nil
}
