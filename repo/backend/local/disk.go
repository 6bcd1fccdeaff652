package local

import (
	"io"
	"io/fs"
)

// disk is the part of an operating system that this package uses. Names are slash paths
// relative to the repository folder, which is ".". Tests use a simulated disk that
// loses all changes that were not flushed.
type disk interface {
	writing
	reading
}

type writing interface {
	// create makes a new file. The error is fs.ErrExist if the name exists.
	create(name string) (file, error)
	// mkdir makes a folder. The error is fs.ErrExist if the name exists.
	mkdir(name string) error
	// link gives the file oldName a second name, newName. The error is fs.ErrExist if
	// newName exists.
	link(oldName, newName string) error
	// rename renames a file. It may overwrite another file.
	rename(from, to string) error
	// remove removes a file.
	remove(name string) error
	// syncDir makes the entries of a folder durable, as far as the file
	// system can.
	syncDir(name string) error
}

type reading interface {
	// open opens a regular file. The error is backend.ErrNotRegular if name is anything else,
	// even a link to a regular file.
	open(name string) (content, error)
	lstat(name string) (fs.FileInfo, error)
	// sameInfo reports whether two results of lstat describe the same file.
	sameInfo(x, y fs.FileInfo) bool
	readDir(name string) ([]fs.DirEntry, error)
}

// file is a new file that is being written.
type file interface {
	io.WriteCloser
	Sync() error
}

// content is a file that is being read.
type content interface {
	io.ReaderAt
	io.Closer
	Size() int64
}
