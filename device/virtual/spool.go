package virtual

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/internal/process"
)

// spool keeps what an encrypted backup has sent until its keys come, which is
// at the end. It lies there as the device sealed it.
//
// It is a folder of three files. Content is appended to "data"; "index" gets a
// line for each file as soon as all of it is written, so that a process that is
// killed leaves what it has received. Both are flushed with checkpoints, for power
// cuts; a line that comes out of one without its content has a hash that the next
// run does not find. "owner" says which process is at work.
type spool struct {
	dir   string
	limit int64
	data  *os.File
	index *os.File

	end     int64 // of what is in use
	buf     []byte
	written int64       // what of end is in the file; the rest is in buf
	fresh   []spoolLine // of files that are received whole, not in the index yet
	noted   int64       // bytes of the index
	synced  bool        // all that is in the files is durable

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
	spoolOwner  = "owner"
	spoolBuffer = 256 << 10
	spoolLines  = 1 << 10 // that are noted at once
)

// errSpoolFull says that the rest has to go elsewhere.
var errSpoolFull = errors.New("the spool is full")

func spoolName(repo, run string) string { return "snap-" + repo + "-" + run }

// openSpool opens the spool of a run, or makes it. Links that lead out of it are
// not followed: what they lead to would be cut short and written over.
func openSpool(dir, name string, limit int64, self process.Identity) (*spool, error) {
	s, err := openSpoolIn(dir, name, self)
	if err != nil {
		return nil, fmt.Errorf("open the spool %s: %w", filepath.Join(dir, name), err)
	}
	s.limit = limit
	return s, nil
}

func openSpoolIn(dir, name string, self process.Identity) (*spool, error) {
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
	for _, file := range []string{spoolOwner, spoolData, spoolIndex} {
		if err := fileOrNothing(own, file); err != nil {
			return nil, err
		}
	}
	if err := writeOwner(own, self); err != nil {
		return nil, err
	}
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

// fileOrNothing returns an error if something else than a file has a name: a pipe
// would be waited for without end.
func fileOrNothing(dir *os.Root, name string) error {
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file; remove it", filepath.Join(dir.Name(), name))
	}
	return err
}

// load reads what an interrupted run has left and keeps what is whole. That can
// take minutes.
func (s *spool) load(ctx context.Context) (map[string]spoolLine, error) {
	kept := map[string]spoolLine{}
	in := bufio.NewReaderSize(io.NewSectionReader(s.index, 0, math.MaxInt64), 64<<10)
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
	s.noted = whole
	there, err := s.data.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	for path, l := range kept {
		if l.Offset > there.Size() || l.Size > there.Size()-l.Offset {
			delete(kept, path)
			continue
		}
		h := blake.NewStream()
		n, err := io.Copy(h, untilDone{ctx, io.NewSectionReader(s.data, l.Offset, l.Size)})
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read the spool: %w", context.Cause(ctx))
		}
		if err != nil || n != l.Size || string(h.Sum(nil)) != string(l.Sum) {
			delete(kept, path)
			continue
		}
		s.end = max(s.end, l.Offset+l.Size)
	}
	s.written = s.end
	return kept, nil
}

// untilDone is a reader that ends with a context.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// begin starts a file.
func (s *spool) begin() {
	s.start = s.end
	s.sum = blake.NewStream()
}

// Write appends to the file that was begun.
func (s *spool) Write(p []byte) (int, error) {
	if s.end+int64(len(p)) > s.limit {
		return 0, errSpoolFull
	}
	s.buf = append(s.buf, p...)
	s.end += int64(len(p))
	if len(s.buf) >= spoolBuffer {
		if err := s.flush(); err != nil {
			// p may come to lie elsewhere.
			s.buf = s.buf[:len(s.buf)-len(p)]
			s.end -= int64(len(p))
			return 0, err
		}
		// What cannot be noted now, the next checkpoint complains about.
		_ = s.noteFresh()
	}
	_, _ = s.sum.Write(p)
	return len(p), nil
}

// flush writes what is in the buffer.
func (s *spool) flush() error {
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

// noteFresh puts the files that were committed into the index. All of them is in
// the data file.
func (s *spool) noteFresh() error {
	if err := s.note(s.fresh...); err != nil {
		return err
	}
	s.fresh = s.fresh[:0]
	return nil
}

// size returns the bytes of the file that was begun.
func (s *spool) size() int64 { return s.end - s.start }

// commit ends the file and returns where it lies.
func (s *spool) commit(path string) (off, size int64) {
	s.fresh = append(s.fresh, spoolLine{Path: path, Offset: s.start, Size: s.size(), Sum: s.sum.Sum(nil)})
	if (s.size() >= spoolBuffer || len(s.fresh) >= spoolLines) && s.flush() == nil {
		_ = s.noteFresh() // or later
	}
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

// sync makes the files that were committed durable.
func (s *spool) sync() error {
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.noteFresh(); err != nil {
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

func (s *spool) syncIndex() error {
	if err := s.index.Sync(); err != nil {
		return fmt.Errorf("flush the index of the spool: %w", err)
	}
	return nil
}

// forget durably takes a file out of the index, before another takes its name.
func (s *spool) forget(path string) error {
	kept := slices.DeleteFunc(s.fresh, func(l spoolLine) bool { return l.Path == path })
	waited := len(kept) < len(s.fresh)
	s.fresh = kept
	if waited {
		return nil // and what it had replaced is out since it came
	}
	if err := s.note(spoolLine{Path: path, Removed: true}); err != nil {
		return err
	}
	return s.syncIndex()
}

// forgetAll is forget for all files.
func (s *spool) forgetAll() error {
	s.fresh, s.noted = nil, 0
	if err := s.index.Truncate(0); err != nil {
		return fmt.Errorf("empty the index of the spool: %w", err)
	}
	return s.syncIndex()
}

// note appends to the index. What of an attempt that failed is there is written
// over by the next one.
func (s *spool) note(lines ...spoolLine) error {
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
	if _, err := s.index.WriteAt(b, s.noted); err != nil {
		return fmt.Errorf("write the index of the spool: %w", err)
	}
	s.noted += int64(len(b))
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
