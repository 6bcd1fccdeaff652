package mobilesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// File is one entry below a backup folder.
type File struct {
	Path string // relative, slash-separated, bytes as the file system has them
	Dir  bool
	Mode fs.FileMode
	Size int64 // bytes; 0 for directories
	// ModTime has the precision of the file system.
	ModTime time.Time
	// Inode and ChangeTime (ns since 1970) are 0 where the system has none.
	Inode      uint64
	ChangeTime int64
	// Skipped says why the entry is not part of the backup: it is a link or
	// another special file, or CheckPath refuses its name. Such a file must not
	// be opened, and such a directory has not been entered. Empty for
	// everything else.
	Skipped string
}

// Files goes through everything below the backup folder: parents before their
// content, names of a directory in byte order. Links are not followed.
//
// Memory is bounded by a few of the largest directories, not by the whole. An
// error ends the sequence; an entry that vanishes while being listed ends it
// with ErrChanged.
func (b *Backup) Files(ctx context.Context) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		w := walker{ctx: ctx, folder: b.folder, yield: yield}
		defer w.wg.Wait()
		entries, err := w.list("")
		if err != nil {
			yield(File{}, fmt.Errorf("list files of %s: %w", b.dir, err))
			return
		}
		if err := w.walk("", entries); err != nil && !errors.Is(err, errStop) {
			yield(File{}, fmt.Errorf("list files of %s: %w", b.dir, err))
		}
	}
}

var errStop = errors.New("stop")

type walker struct {
	ctx    context.Context
	folder source
	yield  func(File, error) bool
	wg     sync.WaitGroup
}

func (w *walker) list(path string) ([]entry, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := w.folder.list(path)
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries, err
}

// listing is a directory that is being listed ahead of its turn.
type listing struct {
	path    string
	entries []entry
	err     error
	done    chan struct{}
}

// walk yields the entries of the directory path and what is below them. The
// directories in the top folder are listed some steps ahead, at once; those
// further down (none in a normal backup) when their turn comes.
func (w *walker) walk(path string, entries []entry) error {
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
			if e := &entries[next]; e.mode.Type() == fs.ModeDir && CheckPath(e.name) == nil {
				ahead = append(ahead, w.listAhead(e.name))
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

func (w *walker) file(dir string, e *entry) (File, error) {
	path := e.name
	if dir != "" {
		path = dir + "/" + e.name
	}
	if e.gone {
		return File{}, &ChangedError{Path: path, What: "it vanished while the folder was listed"}
	}
	f := File{
		Path:       path,
		Dir:        e.mode.IsDir(),
		Mode:       e.mode,
		ModTime:    e.mtime(),
		Inode:      e.inode,
		ChangeTime: e.change,
	}
	if e.mode.IsRegular() {
		f.Size = e.size
	}
	var bad *NameError
	if err := CheckPath(path); errors.As(err, &bad) {
		f.Skipped = bad.Reason
	}
	if reason := oddType(e.mode); reason != "" {
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

// OpenFile opens a regular file inside the backup folder for reading; path is
// relative and slash-separated, as in File. It fails on anything but a regular
// file, passes no symbolic link anywhere on the way, and does not block.
func (b *Backup) OpenFile(path string) (Content, error) {
	if err := CheckPath(path); err != nil {
		return nil, fmt.Errorf("open file of %s: %w", b.dir, err)
	}
	f, _, err := b.folder.open(path)
	if err != nil {
		return nil, fmt.Errorf("open file of backup: %w", err)
	}
	return f, nil
}
