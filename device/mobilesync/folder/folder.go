// Package folder reads the files below one directory that may be hostile: a
// MobileSync backup folder on a disk, or a Store that holds the same files.
//
// It opens regular files, lists directories and walks all of them. It promises
// that nothing outside the directory is opened, no symbolic link inside it is
// followed, and no open blocks on a pipe. CheckPath decides which names can be
// created on every system. The package never writes. It knows neither the layout
// nor the meaning of a backup's files.
package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Content is an open file. Only size and time of its Stat are used.
type Content interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
	Stat() (fs.FileInfo, error)
}

// Stat describes one file of a Source. Links are not followed.
type Stat struct {
	Mode    fs.FileMode
	Size    int64
	ModTime time.Time
	Change  int64  // ns since 1970; 0 if the system has none
	Inode   uint64 // 0 if the system has none
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Stat
	Gone bool  // the name vanished before its Stat was read
	Err  error // why its Stat cannot be read, nil if it was
}

// Source holds the files of one backup. Paths are relative and
// slash-separated; "" is the top. Its methods may be called concurrently.
type Source interface {
	// Open opens a regular file for reading. It fails for anything else.
	Open(path string) (Content, Stat, error)
	// Lstat describes a file. It does not follow links.
	Lstat(path string) (Stat, error)
	// List returns the entries of a directory, in any order. If it fails, it may
	// return some of them.
	List(path string) ([]Entry, error)
	Close() error
}

var (
	// ErrNotRegular says that a file to open is a directory, link, pipe or device.
	ErrNotRegular = errors.New("not a regular file")
	// ErrLink says that an element of a path is a link or a file, not a folder.
	ErrLink = errors.New("a part of the path is a symbolic link or not a folder")
	// ErrChanged says that a folder changed while it was read.
	ErrChanged = errors.New("the backup changed while it was read")
)

// ChangedError says which file changed. It is ErrChanged.
type ChangedError struct {
	Path string // inside the folder
	What string
}

func (e *ChangedError) Error() string { return fmt.Sprintf("%v: %s: %s", ErrChanged, e.Path, e.What) }

// Is makes errors.Is(err, ErrChanged) true.
func (e *ChangedError) Is(target error) bool { return target == ErrChanged }

// Open returns the directory path as a Source. path must not contain links.
func Open(path string) (Source, error) {
	d, err := openDisk(path)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Open implements Source.
func (d *disk) Open(path string) (Content, Stat, error) {
	f, st, err := d.openFile(path)
	if err != nil {
		return nil, st, err
	}
	return f, st, nil
}

// ReadSmall returns the content of a regular file of at most limit bytes, and
// its attributes at the time it was opened.
func ReadSmall(s Source, path string, limit int64) ([]byte, Stat, error) {
	file, st, err := s.Open(path)
	if err != nil {
		return nil, Stat{}, err
	}
	defer file.Close()
	if st.Size > limit {
		return nil, st, fmt.Errorf("%s: %d bytes is more than the limit of %d", path, st.Size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, st, err
	}
	if int64(len(data)) > limit {
		return nil, st, fmt.Errorf("%s: grew beyond %d bytes while it was read", path, limit)
	}
	return data, st, nil
}

// Exists reports whether path names anything.
func Exists(s Source, path string) (bool, error) {
	_, err := s.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func pathError(op, path string, err error) error {
	return &os.PathError{Op: op, Path: path, Err: err}
}
