package mobilesync

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// Content is an open file of a backup.
type Content interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
	Stat() (fs.FileInfo, error) // of which size and time count
}

// Store is a backup that does not lie in a folder on a disk. Paths are relative
// and slash-separated; "" is the top. Its methods may be called at the same
// time. What is not there is fs.ErrNotExist.
type Store interface {
	Open(path string) (Content, error)
	Stat(path string) (File, error)
	List(path string) ([]File, error) // one level, in any order
}

// OpenStore is Open for a backup in a Store. name is what its folder would be
// called: the UDID. Store and whoever closes the Backup stay apart.
func OpenStore(ctx context.Context, store Store, name string) (*Backup, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return openSource(storeSource{store}, name, name)
}

// storeSource is a Store as a source.
type storeSource struct{ store Store }

func (s storeSource) Close() error { return nil }

func (s storeSource) open(path string) (Content, stat, error) {
	c, err := s.store.Open(path)
	if err != nil {
		return nil, stat{}, err
	}
	info, err := c.Stat()
	if err != nil {
		c.Close()
		return nil, stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, stat{mode: info.Mode(), size: info.Size(), modTime: info.ModTime().UnixNano()}, nil
}

func (s storeSource) lstat(path string) (stat, error) {
	f, err := s.store.Stat(path)
	return statOf(&f), err
}

func (s storeSource) list(path string) ([]entry, error) {
	files, err := s.store.List(path)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(files))
	for i := range files {
		name := files[i].Path
		if path != "" {
			name = name[len(path)+1:]
		}
		entries[i] = entry{name: name, stat: statOf(&files[i])}
	}
	return entries, nil
}

func statOf(f *File) stat {
	st := stat{mode: f.Mode.Perm(), size: f.Size, modTime: f.ModTime.UnixNano(), inode: f.Inode, change: f.ChangeTime}
	if f.Dir {
		st.mode |= fs.ModeDir
	}
	if f.ModTime.Equal(time.Time{}) {
		st.modTime = 0
	}
	return st
}
