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

// Walk goes through everything below the top of source: directories before their
// content, names of a directory in byte order. Links are not followed. An entry that
// vanishes while it is listed ends the sequence with ErrChanged. Memory is bounded by a
// few of the largest directories.
//
// Walk calls skip for each file or directory below the top that cannot be read. If skip
// returns nil, Walk goes on without that file, or without those entries of the directory
// that it could not list. An error of skip ends the sequence. So does a directory that
// vanished: Walk does not call skip for it.
func Walk(ctx context.Context, source Source, skip func(path string, err error) error) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		w := walker{ctx: ctx, source: source, yield: yield, skip: skip}
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
	skip   func(path string, err error) error
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
		if e := &entries[i]; e.Err != nil {
			if err := w.skip(join(path, e.Name), e.Err); err != nil {
				return err
			}
			continue
		}
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
			if err := w.enter(f.Path, children, err); err != nil {
				return err
			}
			continue
		}
		for next = max(next, i); next < len(entries) && len(ahead) < 2*runtime.GOMAXPROCS(0); next++ {
			if e := &entries[next]; e.Err == nil && e.Mode.Type() == fs.ModeDir && CheckPath(e.Name) == nil {
				ahead = append(ahead, w.listAhead(e.Name))
			}
		}
		l := ahead[0]
		ahead = ahead[1:]
		<-l.done
		if err := w.enter(l.path, l.entries, l.err); err != nil {
			return err
		}
	}
	return nil
}

// enter walks through a directory; err is the error of listing it. If the directory
// has vanished or become something else, the folder is changing, and enter returns err.
func (w *walker) enter(path string, entries []Entry, err error) error {
	switch {
	case err == nil:
	case w.ctx.Err() != nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrLink):
		return err
	default:
		if err := w.skip(path, err); err != nil {
			return err
		}
	}
	return w.walk(path, entries)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
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
	path := join(dir, e.Name)
	if e.Gone {
		return File{}, &ChangedError{Path: path, What: "it vanished while the folder was listed"}
	}
	f := File{
		Path:       path,
		Dir:        e.Mode.IsDir(),
		Mode:       e.Mode,
		ModTime:    e.ModTime,
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
