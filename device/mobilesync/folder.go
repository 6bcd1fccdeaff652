package mobilesync

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// stat is what the file system says about one entry, links not followed.
type stat struct {
	mode    fs.FileMode
	size    int64
	modTime int64 // ns since 1970
	change  int64 // ns since 1970; 0 where the system has none
	inode   uint64
}

func (s stat) mtime() time.Time { return time.Unix(0, s.modTime) }

var (
	errNotRegular = errors.New("not a regular file")
	errLink       = errors.New("a part of the path is a symbolic link or not a folder")
)

// source is where a backup lies.
type source interface {
	// open opens a regular file for reading, and nothing else.
	open(path string) (Content, stat, error)
	// lstat does not follow links.
	lstat(path string) (stat, error)
	// list returns the entries of a directory, in no order; "" is the top.
	list(path string) ([]entry, error)
	Close() error
}

// diskFolder is a folder as a source.
type diskFolder struct{ *folder }

func (d diskFolder) open(path string) (Content, stat, error) {
	f, st, err := d.folder.open(path)
	if err != nil {
		return nil, st, err
	}
	return f, st, nil
}

// entry is one name of a directory.
type entry struct {
	name string
	stat
	gone bool // the name vanished between listing and asking for it
}

// readSmall returns the whole content of a regular file of at most limit
// bytes, and its attributes as they were when it was opened.
func readSmall(f source, path string, limit int64) ([]byte, stat, error) {
	file, st, err := f.open(path)
	if err != nil {
		return nil, stat{}, err
	}
	defer file.Close()
	if st.size > limit {
		return nil, st, fmt.Errorf("%s: %d bytes, more than the %d that can be right", path, st.size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, st, err
	}
	if int64(len(data)) > limit {
		return nil, st, fmt.Errorf("%s: grew over %d bytes while it was read", path, limit)
	}
	return data, st, nil
}

// exists reports whether path is there, as anything.
func exists(f source, path string) (bool, error) {
	_, err := f.lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func pathError(op, path string, err error) error {
	return &os.PathError{Op: op, Path: path, Err: err}
}
