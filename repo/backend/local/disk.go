package local

import (
	"errors"
	"io"
	"io/fs"
)

// disk is the part of an operating system that this package uses. Names are slash
// paths relative to the repository folder, which is ".". Tests use a simulated disk
// that loses what was not flushed.
type disk interface {
	writing
	reading
}

type writing interface {
	// create makes a new file; fs.ErrExist if the name exists.
	create(name string) (file, error)
	// mkdir makes a folder; fs.ErrExist if the name exists.
	mkdir(name string) error
	// link gives a file a second name; fs.ErrExist if that exists.
	link(from, to string) error
	// rename may overwrite a file.
	rename(from, to string) error
	// remove removes a file.
	remove(name string) error
	// syncDir makes the entries of a folder durable, as far as the file
	// system can.
	syncDir(name string) error
}

type reading interface {
	// open opens a regular file; errNotRegular if the name is of anything else,
	// including a link to a regular file.
	open(name string) (content, error)
	lstat(name string) (fs.FileInfo, error)
	// same reports whether two results of lstat are of one file.
	same(x, y fs.FileInfo) bool
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

var errNotRegular = errors.New("not a regular file")
