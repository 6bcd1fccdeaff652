package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// received is the backup that a device has sent, for package ingest.
type received struct {
	r     *Receiver
	ctx   context.Context
	runID string

	opening bool  // the property lists are being read
	err     error // first failure to read one of them
}

var (
	_ ingest.Source = (*received)(nil)
	_ folder.Store  = (*received)(nil)
)

// Parent implements ingest.Source.
func (s *received) Parent(context.Context) (*repo.Snapshot, error) { return s.r.parent, nil }

// Origin implements ingest.Source.
func (s *received) Origin() repo.Source {
	return repo.Source{Kind: repo.FromDevice, Folder: s.r.opts.UDID, RunID: s.runID, Full: s.r.status.full}
}

// Written implements ingest.Source.
func (s *received) Written() repo.WriteStats { return s.r.stats }

// Stored implements ingest.Source. Only files in the spool must be read.
func (s *received) Stored(ctx context.Context, file ingest.File) (*ingest.Stored, error) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.names.Lookup(file.Entry.Path)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", file.Entry.Path, fs.ErrNotExist)
	case f.File != nil && f.File.Spooled():
		return nil, nil
	case f.File != nil:
		e := tree.Entry{Mode: blob.FileMode, ModTime: tree.At(r.now), Content: r.names.Content(f.File)}
		return &ingest.Stored{Entry: e, Sent: true, Sum: (*[20]byte)(f.Sum), Short: f.File.State&catalog.Short != 0, Zeros: f.File.State&catalog.Zeros != 0}, nil
	}
	e, err := r.names.Entry(ctx, f)
	if err != nil {
		return nil, err
	}
	return &ingest.Stored{Entry: *e, Final: r.parent.Unlocked}, nil
}

// Open implements folder.Store. It is not called for files that would have to
// be encrypted again, since Stored returns their content.
func (s *received) Open(path string) (folder.Content, error) {
	f, err := s.r.open(s.ctx, path)
	if err != nil {
		return nil, err
	}
	c, ok := f.(folder.Content)
	if !ok {
		f.Close()
		return nil, fmt.Errorf("open %s: its content is stored decrypted: %w", path, errors.ErrUnsupported)
	}
	if s.opening {
		c = watched{c, s}
	}
	return c, nil
}

// watched is a property list. It remembers the first failure to read, so that a list that
// the repository cannot give back is not mistaken for one that the device sent damaged.
type watched struct {
	folder.Content
	s *received
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Content.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && w.s.err == nil {
		w.s.err = err
	}
	return n, err
}

// Stat implements folder.Store.
func (s *received) Stat(path string) (folder.File, error) {
	s.r.mu.RLock()
	defer s.r.mu.RUnlock()
	if d, ok := s.r.names.Dir(path); ok {
		return dirInfo(path, &d), nil
	}
	f, ok := s.r.names.Lookup(path)
	if !ok {
		return folder.File{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return s.fileInfo(path, s.r.names.Size(f)), nil
}

// List implements folder.Store.
func (s *received) List(dir string) ([]folder.File, error) {
	s.r.mu.RLock()
	defer s.r.mu.RUnlock()
	items, err := s.r.names.List(dir)
	if err != nil {
		return nil, err
	}
	out := make([]folder.File, len(items))
	for i, it := range items {
		path := it.Name
		if dir != "" {
			path = dir + "/" + it.Name
		}
		if it.Dir != nil {
			out[i] = dirInfo(path, it.Dir)
			continue
		}
		out[i] = s.fileInfo(path, it.Size)
	}
	return out, nil
}

// fileInfo describes a file. For files of the parent, Stored later replaces the
// mode and time.
func (s *received) fileInfo(path string, size int64) folder.File {
	return folder.File{Path: path, Mode: blob.FileMode, Size: size, ModTime: s.r.now}
}

func dirInfo(path string, e *tree.Entry) folder.File {
	return folder.File{Path: path, Dir: true, Mode: fs.ModeDir | fs.FileMode(e.Mode).Perm(), ModTime: e.ModTime.Time()}
}
