package virtual

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lukechampine.com/blake3"
)

// spool keeps what an encrypted backup has sent until its keys come, which is
// at the end. It lies there as the device sealed it.
//
// It is a folder of two files. Content is appended to "data"; "index" gets a
// line for each file when that is durable. So whatever is cut off, every line
// is of a file that is there; its hash says so again when the next run reads it.
type spool struct {
	dir   string
	limit int64
	data  *os.File
	index *os.File

	end     int64 // of what is in use
	buf     []byte
	written int64 // what of end is in the file; the rest is in buf
	fresh   []spoolLine

	// Of the file that is being received.
	start int64
	sum   hash.Hash
}

// spoolLine is a line of the index.
type spoolLine struct {
	Path    string `json:"path"`
	Offset  int64  `json:"offset,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Sum     []byte `json:"sum,omitempty"`     // BLAKE3-256
	Removed bool   `json:"removed,omitempty"` // lines before do not count any more
}

const (
	spoolData   = "data"
	spoolIndex  = "index"
	spoolBuffer = 256 << 10
	// staleSpool is how old a spool is, of which no run is known, that is
	// removed: one of a run that has only begun is younger.
	staleSpool = 24 * time.Hour
)

// errSpoolFull says that the rest has to go elsewhere.
var errSpoolFull = errors.New("the spool is full")

func spoolName(repo, run string) string { return "snap-" + repo + "-" + run }

// openSpool opens the spool of a run, or makes it. Links that lead out of it are
// not followed: what they lead to would be cut short and written over.
func openSpool(dir, name string, limit int64) (*spool, error) {
	s, err := openSpoolIn(dir, name)
	if err != nil {
		return nil, fmt.Errorf("open the spool %s: %w", filepath.Join(dir, name), err)
	}
	s.limit = limit
	return s, nil
}

func openSpoolIn(dir, name string) (*spool, error) {
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
	s := &spool{dir: filepath.Join(dir, name)}
	const flags = os.O_RDWR | os.O_CREATE
	if s.data, err = own.OpenFile(spoolData, flags, 0o600); err != nil {
		return nil, err
	}
	if s.index, err = own.OpenFile(spoolIndex, flags, 0o600); err != nil {
		s.data.Close()
		return nil, err
	}
	return s, nil
}

// load reads what an interrupted run has left and keeps what is whole.
func (s *spool) load() (map[string]spoolLine, error) {
	kept := map[string]spoolLine{}
	in := bufio.NewReaderSize(s.index, 64<<10)
	whole := int64(0) // bytes of the index that make sense
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("read the index of the spool: %w", err)
		}
		var l spoolLine
		if err != nil || json.Unmarshal(line, &l) != nil || l.Offset < 0 || l.Size < 0 {
			break
		}
		whole += int64(len(line))
		if l.Removed {
			delete(kept, l.Path)
			continue
		}
		kept[l.Path] = l
	}
	// What was cut off must not become part of the next line.
	if err := s.index.Truncate(whole); err != nil {
		return nil, fmt.Errorf("read the index of the spool: %w", err)
	}
	if _, err := s.index.Seek(whole, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the index of the spool: %w", err)
	}
	for path, l := range kept {
		h := blake3.New(32, nil)
		n, err := io.Copy(h, io.NewSectionReader(s.data, l.Offset, l.Size))
		if err != nil || n != l.Size || string(h.Sum(nil)) != string(l.Sum) {
			delete(kept, path)
			continue
		}
		s.end = max(s.end, l.Offset+l.Size)
	}
	s.written = s.end
	return kept, nil
}

// begin starts a file.
func (s *spool) begin() {
	s.start = s.end
	s.sum = blake3.New(32, nil)
}

// Write appends to the file that was begun.
func (s *spool) Write(p []byte) (int, error) {
	if s.end+int64(len(p)) > s.limit {
		return 0, errSpoolFull
	}
	_, _ = s.sum.Write(p)
	s.buf = append(s.buf, p...)
	s.end += int64(len(p))
	if len(s.buf) >= spoolBuffer {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *spool) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	if _, err := s.data.WriteAt(s.buf, s.written); err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	s.written += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

// size returns the bytes of the file that was begun.
func (s *spool) size() int64 { return s.end - s.start }

// commit ends the file and returns where it lies.
func (s *spool) commit(path string) (off, size int64) {
	s.fresh = append(s.fresh, spoolLine{Path: path, Offset: s.start, Size: s.size(), Sum: s.sum.Sum(nil)})
	return s.start, s.size()
}

// abort forgets the file. Its bytes are written over.
func (s *spool) abort() {
	if s.written > s.start {
		s.written = s.start
		s.buf = s.buf[:0]
	} else {
		s.buf = s.buf[:s.start-s.written]
	}
	s.end = s.start
}

// section reads a file, also one that was not committed.
func (s *spool) section(off, size int64) (*io.SectionReader, error) {
	if off+size > s.written {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	return io.NewSectionReader(s.data, off, size), nil
}

// sync makes the files that were committed durable, then says so in the index.
func (s *spool) sync() error {
	if len(s.fresh) == 0 {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.data.Sync(); err != nil {
		return fmt.Errorf("flush the spool: %w", err)
	}
	if err := s.note(s.fresh...); err != nil {
		return err
	}
	s.fresh = s.fresh[:0]
	return nil
}

// forget durably takes a file out of the index, before another takes its name.
func (s *spool) forget(path string) error { return s.note(spoolLine{Path: path, Removed: true}) }

// forgetAll is forget for all files.
func (s *spool) forgetAll() error {
	s.fresh = nil
	if err := s.index.Truncate(0); err != nil {
		return fmt.Errorf("empty the index of the spool: %w", err)
	}
	if _, err := s.index.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("empty the index of the spool: %w", err)
	}
	if err := s.index.Sync(); err != nil {
		return fmt.Errorf("empty the index of the spool: %w", err)
	}
	return nil
}

func (s *spool) note(lines ...spoolLine) error {
	var b []byte
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	if _, err := s.index.Write(b); err != nil {
		return fmt.Errorf("write the index of the spool: %w", err)
	}
	if err := s.index.Sync(); err != nil {
		return fmt.Errorf("flush the index of the spool: %w", err)
	}
	return nil
}

// close lets go of the spool; the next run finds it.
func (s *spool) close() error {
	return errors.Join(s.data.Close(), s.index.Close())
}

// remove gives the space back.
func (s *spool) remove() error {
	_ = s.close()
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove the spool: %w", err)
	}
	return nil
}

// sweepSpools removes spools of runs of this repository that nobody continues.
// What cannot be removed stays for the next time.
func sweepSpools(dir, repo string, known map[string]bool, now time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		run, ok := strings.CutPrefix(e.Name(), spoolName(repo, ""))
		if !ok || !e.IsDir() || known[run] {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name(), spoolData)); err == nil && now.Sub(info.ModTime()) < staleSpool {
			continue
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_ = os.RemoveAll(filepath.Join(dir, e.Name()))
	}
}
