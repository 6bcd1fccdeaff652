// Package spool keeps the files of an encrypted backup until the device has
// sent their keys, at the end of the backup. The files stay encrypted by the
// device.
//
// A spool is a folder of three files. "data" holds the content. "index" gets a
// line for each received file as soon as all of its content is in "data", so
// that the file is kept even if the process is killed. Checkpoints flush both
// to protect them against power failures. Load detects lost content by its
// hash. "owner" says which process uses the spool.
//
// The package never follows a link out of the folder. It never opens a pipe in
// the place of one of the files, since that could wait for ever.
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
	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/internal/process"
)

// Spool is the spool of one backup. One goroutine may use it at a time.
type Spool struct {
	dir   string
	limit int64
	data  *os.File
	index *os.File

	end     int64 // where the last file ends in the data file
	buf     []byte
	written int64  // how many bytes before end are in the data file; the rest is in buf
	fresh   []Line // lines of committed files that are not in the index yet
	indexed int64  // length of the index in bytes
	synced  bool   // everything in the files is durable

	// About the file that is being received.
	start int64
	sum   hash.Hash
}

// Line is a line of the index.
type Line struct {
	Path    string `json:"path"`
	Offset  int64  `json:"offset,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Sum     []byte `json:"sum,omitempty"`     // BLAKE3-256
	Removed bool   `json:"removed,omitempty"` // the file was removed, so earlier lines of the path are invalid
}

const (
	dataFile   = "data"
	indexFile  = "index"
	ownerFile  = "owner"
	bufferSize = 256 << 10
	maxFresh   = 1 << 10 // number of fresh lines at which Commit writes them to the index
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

// checkRegular returns an error if a name exists and is not a regular file.
// Opening a pipe would wait for its other end.
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

// Write appends to the current file. If it returns an error, such as ErrFull,
// nothing was appended.
func (s *Spool) Write(p []byte) (int, error) {
	if s.end+int64(len(p)) > s.limit {
		return 0, ErrFull
	}
	s.buf = append(s.buf, p...)
	s.end += int64(len(p))
	if len(s.buf) >= bufferSize {
		if err := s.Flush(); err != nil {
			// Remove p from the buffer, since the caller may store it elsewhere.
			s.buf = s.buf[:len(s.buf)-len(p)]
			s.end -= int64(len(p))
			return 0, err
		}
		// The error is ignored: Sync tries again and reports it.
		_ = s.indexFresh()
	}
	_, _ = s.sum.Write(p)
	return len(p), nil
}

// Flush writes the buffer to the data file.
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

// Commit ends the current file and returns its offset and size.
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
	if err := filesystem.SyncIfSupported(s.data); err != nil {
		return fmt.Errorf("flush the spool: %w", err)
	}
	if err := s.syncIndex(); err != nil {
		return err
	}
	s.synced = true
	return nil
}

func (s *Spool) syncIndex() error {
	if err := filesystem.SyncIfSupported(s.index); err != nil {
		return fmt.Errorf("flush the index of the spool: %w", err)
	}
	return nil
}

// Forget durably removes a file from the index. It must be called before
// another file gets the path.
func (s *Spool) Forget(path string) error {
	kept := slices.DeleteFunc(s.fresh, func(l Line) bool { return l.Path == path })
	waited := len(kept) < len(s.fresh)
	s.fresh = kept
	if waited {
		return nil // the line was not in the index yet, and Forget has removed any earlier one
	}
	if err := s.appendIndex(Line{Path: path, Removed: true}); err != nil {
		return err
	}
	return s.syncIndex()
}

// ForgetAll durably removes all files from the index.
func (s *Spool) ForgetAll() error {
	s.fresh, s.indexed = nil, 0
	if err := s.index.Truncate(0); err != nil {
		return fmt.Errorf("empty the index of the spool: %w", err)
	}
	return s.syncIndex()
}

// appendIndex appends lines to the index. It overwrites what a failed attempt
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

// Close closes the files. The spool stays for the next backup.
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
