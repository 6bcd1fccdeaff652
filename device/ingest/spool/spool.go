// Package spool keeps what an encrypted backup sends until the keys arrive, at
// its end. Everything in a spool is encrypted by the device.
//
// A spool is a folder of three files. Content is appended to "data". "index"
// gets a line for each file as soon as all of its content is written, so what a
// killed process has received is kept. Checkpoints flush both, against power
// failures; Load finds lost content by its hash. "owner" says which process
// uses the spool.
//
// It never follows a link out of its folder, and never waits for a pipe that
// has the name of a file.
package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/internal/process"
)

// Spool is the spool of one backup. One goroutine may use it at a time.
type Spool struct {
	dir   string
	limit int64
	data  *os.File
	index *os.File

	end     int64 // of the last file
	buf     []byte
	written int64  // bytes before end that are in the file; the rest is in buf
	fresh   []Line // of committed files that are not in the index yet
	indexed int64  // bytes of the index
	synced  bool   // everything in the files is durable

	// Of the file that is being received.
	start int64
	sum   hash.Hash
}

// Line is a line of the index.
type Line struct {
	Path    string `json:"path"`
	Offset  int64  `json:"offset,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Sum     []byte `json:"sum,omitempty"`     // BLAKE3-256
	Removed bool   `json:"removed,omitempty"` // earlier lines of the path do not count any more
}

const (
	dataFile   = "data"
	indexFile  = "index"
	ownerFile  = "owner"
	bufferSize = 256 << 10
	maxFresh   = 1 << 10 // lines that are written to the index at once
)

// ErrFull says that the spool has reached its limit.
var ErrFull = errors.New("the spool is full")

// Name returns the name of the spool of an unfinished backup.
func Name(repo, run string) string { return "snap-" + repo + "-" + run }

// Open opens the spool dir/name, or creates it, and makes self its owner. limit
// bounds its content in bytes.
func Open(dir, name string, limit int64, self process.Identity) (*Spool, error) {
	s, err := open(dir, name, self)
	if err != nil {
		return nil, fmt.Errorf("open the spool %s: %w", filepath.Join(dir, name), err)
	}
	s.limit = limit
	return s, nil
}

// open follows no links out of the folder, since their targets would be
// overwritten.
func open(dir, name string, self process.Identity) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	spools, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer spools.Close()
	if err := spools.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	own, err := spools.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	for _, file := range []string{ownerFile, dataFile, indexFile} {
		if err := checkRegular(own, file); err != nil {
			return nil, err
		}
	}
	if err := writeOwner(own, self); err != nil {
		return nil, err
	}
	s := &Spool{dir: filepath.Join(dir, name)}
	const flags = os.O_RDWR | os.O_CREATE
	if s.data, err = own.OpenFile(dataFile, flags, 0o600); err != nil {
		return nil, err
	}
	if s.index, err = own.OpenFile(indexFile, flags, 0o600); err != nil {
		s.data.Close()
		return nil, err
	}
	return s, nil
}

// checkRegular returns an error if a name is taken by anything but a regular
// file: opening a pipe would wait for its other end.
func checkRegular(dir *os.Root, name string) error {
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file; remove it", filepath.Join(dir.Name(), name))
	}
	return err
}

// Dir returns the folder of the spool.
func (s *Spool) Dir() string { return s.dir }

// Begin begins a file.
func (s *Spool) Begin() {
	s.start = s.end
	s.sum = blake.NewStream()
}

// Write appends to the current file. It writes nothing if it returns an error,
// such as ErrFull.
func (s *Spool) Write(p []byte) (int, error) {
	if s.end+int64(len(p)) > s.limit {
		return 0, ErrFull
	}
	s.buf = append(s.buf, p...)
	s.end += int64(len(p))
	if len(s.buf) >= bufferSize {
		if err := s.Flush(); err != nil {
			// The caller may store p elsewhere.
			s.buf = s.buf[:len(s.buf)-len(p)]
			s.end -= int64(len(p))
			return 0, err
		}
		// Sync reports an index that cannot be written.
		_ = s.indexFresh()
	}
	_, _ = s.sum.Write(p)
	return len(p), nil
}

// Flush writes the buffer to the file.
func (s *Spool) Flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	s.synced = false
	if _, err := s.data.WriteAt(s.buf, s.written); err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	s.written += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

// indexFresh adds the committed files to the index. Their content must be in the
// data file.
func (s *Spool) indexFresh() error {
	if err := s.appendIndex(s.fresh...); err != nil {
		return err
	}
	s.fresh = s.fresh[:0]
	return nil
}

// size returns the bytes of the current file.
func (s *Spool) size() int64 { return s.end - s.start }

// Commit ends the current file and returns its position.
func (s *Spool) Commit(path string) (off, size int64) {
	s.fresh = append(s.fresh, Line{Path: path, Offset: s.start, Size: s.size(), Sum: s.sum.Sum(nil)})
	if (s.size() >= bufferSize || len(s.fresh) >= maxFresh) && s.Flush() == nil {
		_ = s.indexFresh() // Sync tries again
	}
	return s.start, s.size()
}

// Abort drops the current file. Its bytes will be overwritten.
func (s *Spool) Abort() {
	if s.written > s.start {
		s.written = s.start
		s.buf = s.buf[:0]
	} else {
		s.buf = s.buf[:s.start-s.written]
	}
	s.end = s.start
}

// Section returns a reader of a committed file.
func (s *Spool) Section(off, size int64) (*io.SectionReader, error) {
	if off+size > s.written {
		if err := s.Flush(); err != nil {
			return nil, err
		}
	}
	return io.NewSectionReader(s.data, off, size), nil
}

// Current returns a reader of the current file's bytes so far.
func (s *Spool) Current() (*io.SectionReader, error) { return s.Section(s.start, s.size()) }

// Sync makes the committed files durable.
func (s *Spool) Sync() error {
	if err := s.Flush(); err != nil {
		return err
	}
	if err := s.indexFresh(); err != nil {
		return err
	}
	if s.synced {
		return nil
	}
	if err := s.data.Sync(); err != nil {
		return fmt.Errorf("flush the spool: %w", err)
	}
	if err := s.syncIndex(); err != nil {
		return err
	}
	s.synced = true
	return nil
}

func (s *Spool) syncIndex() error {
	if err := s.index.Sync(); err != nil {
		return fmt.Errorf("flush the index of the spool: %w", err)
	}
	return nil
}

// Forget durably removes a file from the index, before another gets its path.
func (s *Spool) Forget(path string) error {
	kept := slices.DeleteFunc(s.fresh, func(l Line) bool { return l.Path == path })
	waited := len(kept) < len(s.fresh)
	s.fresh = kept
	if waited {
		return nil // the index has no file of this path: Forget was called before
	}
	if err := s.appendIndex(Line{Path: path, Removed: true}); err != nil {
		return err
	}
	return s.syncIndex()
}

// ForgetAll is Forget for all files.
func (s *Spool) ForgetAll() error {
	s.fresh, s.indexed = nil, 0
	if err := s.index.Truncate(0); err != nil {
		return fmt.Errorf("empty the index of the spool: %w", err)
	}
	return s.syncIndex()
}

// appendIndex appends lines to the index, overwriting what a failed attempt
// wrote.
func (s *Spool) appendIndex(lines ...Line) error {
	if len(lines) == 0 {
		return nil
	}
	var b []byte
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	s.synced = false
	if _, err := s.index.WriteAt(b, s.indexed); err != nil {
		return fmt.Errorf("write the index of the spool: %w", err)
	}
	s.indexed += int64(len(b))
	return nil
}

// Close closes the files. The next backup finds the spool.
func (s *Spool) Close() error {
	return errors.Join(s.data.Close(), s.index.Close())
}

// Remove closes and removes the spool.
func (s *Spool) Remove() error {
	_ = s.Close()
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove the spool: %w", err)
	}
	return nil
}
