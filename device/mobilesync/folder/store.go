package folder

import (
	"fmt"
	"io/fs"
	"time"
)

// Store holds the files of a backup that is not a folder on a disk. Paths are
// relative and slash-separated; "" is the top. Its methods may be called
// concurrently. A missing file is fs.ErrNotExist.
type Store interface {
	Open(path string) (Content, error)
	Stat(path string) (File, error)
	List(path string) ([]File, error) // one level, in any order
}

// FromStore returns store as a Source. Closing the Source does not close store.
func FromStore(store Store) Source { return storeSource{store} }

type storeSource struct{ store Store }

func (s storeSource) Close() error { return nil }

func (s storeSource) Open(path string) (Content, Stat, error) {
	c, err := s.store.Open(path)
	if err != nil {
		return nil, Stat{}, err
	}
	info, err := c.Stat()
	if err != nil {
		c.Close()
		return nil, Stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, Stat{Mode: info.Mode(), Size: info.Size(), ModTime: info.ModTime()}, nil
}

func (s storeSource) Lstat(path string) (Stat, error) {
	f, err := s.store.Stat(path)
	return statOf(&f), err
}

func (s storeSource) List(path string) ([]Entry, error) {
	files, err := s.store.List(path)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(files))
	for i := range files {
		name := files[i].Path
		if path != "" {
			name = name[len(path)+1:]
		}
		entries[i] = Entry{Name: name, Stat: statOf(&files[i])}
	}
	return entries, nil
}

func statOf(f *File) Stat {
	st := Stat{Mode: f.Mode.Perm(), Size: f.Size, ModTime: f.ModTime, Inode: f.Inode, Change: f.ChangeTime}
	if f.Dir {
		st.Mode |= fs.ModeDir
	}
	if f.ModTime.IsZero() {
		st.ModTime = time.Unix(0, 0)
	}
	return st
}
