package local

import (
	"errors"
	"io"
	"io/fs"
)

// disk is what this package asks of an operating system. Names are slash paths
// relative to the repository folder, "." is that folder. Tests put a simulated
// disk in its place, which forgets what was not flushed.
type disk interface {
	writing
	reading
}

type writing interface {
	// create makes a new file; fs.ErrExist if the name is taken.
	create(name string) (file, error)
	// mkdir makes a folder; fs.ErrExist if the name is taken.
	mkdir(name string) error
	// link gives a file a second name; fs.ErrExist if that is taken.
	link(from, to string) error
	// rename may overwrite.
	rename(from, to string) error
	// remove removes a file.
	remove(name string) error
	// syncDir makes the entries of a folder durable, as far as the file
	// system can.
	syncDir(name string) error
}

type reading interface {
	// open opens a plain file; errNotPlain if there is something else, also
	// if that is a link to a plain file.
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

var errNotPlain = errors.New("not a plain file")
