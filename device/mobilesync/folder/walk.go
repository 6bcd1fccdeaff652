package folder

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// File is one file or directory below the top of a Source.
type File struct {
	Path string // relative, slash-separated, with the bytes that the file system has
	Dir  bool
	Mode fs.FileMode
	Size int64 // bytes; 0 for directories
	// ModTime has the precision of the file system.
	ModTime time.Time
	// Inode and ChangeTime (ns since 1970) are 0 if the system has none.
	Inode      uint64
	ChangeTime int64
	// Skipped says why the file is not part of the backup: it is a link or
	// another special file, or CheckPath refuses its name. Such a file must not
	// be opened, and such a directory is not entered. Empty otherwise.
	Skipped string
}

// Walk goes through everything below the top of source: directories before
// their content, names of a directory in byte order. Links are not followed.
//
// Memory is bounded by a few of the largest directories. An error ends the
// sequence; an entry that vanishes while it is listed ends it with ErrChanged.
func Walk(ctx context.Context, source Source) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		w := walker{ctx: ctx, source: source, yield: yield}
		defer w.wg.Wait()
		entries, err := w.list("")
		if err == nil {
			err = w.walk("", entries)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(File{}, err)
		}
	}
}

var errStop = errors.New("stop")

type walker struct {
	ctx    context.Context
	source Source
	yield  func(File, error) bool
	wg     sync.WaitGroup
}

func (w *walker) list(path string) ([]Entry, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := w.source.List(path)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, err
}

// listing is a directory that is listed ahead of time.
type listing struct {
	path    string
	entries []Entry
	err     error
	done    chan struct{}
}

// walk yields the entries of the directory path and everything below them. It
// lists directories at the top ahead of time, concurrently. It lists deeper
// directories, which a normal backup does not have, when it reaches them.
func (w *walker) walk(path string, entries []Entry) error {
	var ahead []*listing
	next := 0
	for i := range entries {
		f, err := w.file(path, &entries[i])
		if err != nil {
			return err
		}
		if !w.yield(f, nil) {
			return errStop
		}
		if !f.Dir || f.Skipped != "" {
			continue
		}
		if path != "" {
			children, err := w.list(f.Path)
			if err == nil {
				err = w.walk(f.Path, children)
			}
			if err != nil {
				return err
			}
			continue
		}
		for next = max(next, i); next < len(entries) && len(ahead) < 2*runtime.GOMAXPROCS(0); next++ {
			if e := &entries[next]; e.Mode.Type() == fs.ModeDir && CheckPath(e.Name) == nil {
				ahead = append(ahead, w.listAhead(e.Name))
			}
		}
		l := ahead[0]
		ahead = ahead[1:]
		<-l.done
		if l.err != nil {
			return l.err
		}
		if err := w.walk(l.path, l.entries); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) listAhead(path string) *listing {
	l := &listing{path: path, done: make(chan struct{})}
	w.wg.Go(func() {
		defer close(l.done)
		l.entries, l.err = w.list(path)
	})
	return l
}

func (w *walker) file(dir string, e *Entry) (File, error) {
	path := e.Name
	if dir != "" {
		path = dir + "/" + e.Name
	}
	if e.Gone {
		return File{}, &ChangedError{Path: path, What: "it vanished while the folder was listed"}
	}
	f := File{
		Path:       path,
		Dir:        e.Mode.IsDir(),
		Mode:       e.Mode,
		ModTime:    time.Unix(0, e.ModTime),
		Inode:      e.Inode,
		ChangeTime: e.Change,
	}
	if e.Mode.IsRegular() {
		f.Size = e.Size
	}
	var bad *NameError
	if err := CheckPath(path); errors.As(err, &bad) {
		f.Skipped = bad.Reason
	}
	if reason := oddType(e.Mode); reason != "" {
		f.Skipped = reason
	}
	return f, nil
}

func oddType(mode fs.FileMode) string {
	switch t := mode.Type(); {
	case t == 0, t == fs.ModeDir:
		return ""
	case t&fs.ModeSymlink != 0:
		return "symbolic link"
	case t&fs.ModeNamedPipe != 0:
		return "named pipe"
	case t&fs.ModeSocket != 0:
		return "socket"
	case t&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}
