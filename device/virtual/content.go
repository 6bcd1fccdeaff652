package virtual

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// content reads a file out of the repository, from any offset. Every byte has
// been authenticated; what is damaged is an error and never other bytes.
type content struct {
	ctx  context.Context
	r    *repo.Repo
	info fileInfo
	ids  []chunk.ID
	ends []int64 // offsets behind the chunks
	pos  int64

	mu   sync.Mutex // guards the chunk used last: getting one checks all of it
	last int        // its number and 1; 0 for none
	data []byte
}

// openContent reads where the chunks of a content lie. They stay where they
// are until they are asked for.
func openContent(ctx context.Context, r *repo.Repo, c *tree.Content, modTime time.Time) (*content, error) {
	f := &content{ctx: ctx, r: r, info: fileInfo{c.Size, modTime}}
	off := int64(0)
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		size, ok := r.Index().Size(id)
		if !ok {
			return fmt.Errorf("chunk %s: %w", id.Short(), errGone)
		}
		if off += int64(size); off > c.Size {
			return errSize
		}
		f.ids, f.ends = append(f.ids, id), append(f.ends, off)
		return nil
	})
	if err == nil && off != c.Size {
		err = errSize
	}
	if err != nil {
		return nil, fmt.Errorf("open content of the repository: %w", err)
	}
	return f, nil
}

var (
	errGone = fmt.Errorf("it is in no index: %w", repo.ErrDamaged)
	errSize = fmt.Errorf("its chunks have another length than the file: %w", repo.ErrDamaged)
)

// ReadAt implements io.ReaderAt.
func (f *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := 0
	for n < len(p) {
		i := sort.Search(len(f.ends), func(i int) bool { return f.ends[i] > off })
		if i == len(f.ends) {
			return n, io.EOF
		}
		data, err := f.chunk(i)
		if err != nil {
			return n, err
		}
		m := copy(p[n:], data[off-(f.ends[i]-int64(len(data))):])
		n += m
		off += int64(m)
	}
	return n, nil
}

func (f *content) chunk(i int) ([]byte, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == i+1 {
		return f.data, nil
	}
	data, err := f.r.Chunk(f.ctx, f.ids[i])
	if err == nil {
		f.last, f.data = i+1, data
	}
	return data, err
}

// Read implements io.Reader. It gives no more than what one chunk has: the
// next one costs decoding.
func (f *content) Read(p []byte) (int, error) {
	i := sort.Search(len(f.ends), func(i int) bool { return f.ends[i] > f.pos })
	if i == len(f.ends) {
		return 0, io.EOF
	}
	n, err := f.ReadAt(p[:min(int64(len(p)), f.ends[i]-f.pos)], f.pos)
	f.pos += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (f *content) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.pos
	case io.SeekEnd:
		off += f.info.size
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	f.pos = off
	return off, nil
}

func (f *content) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *content) Close() error               { return nil }

// fileInfo is what there is to say about a file.
type fileInfo struct {
	size    int64
	modTime time.Time
}

func (i fileInfo) Name() string       { return "" }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return fileMode }
func (i fileInfo) ModTime() time.Time { return i.modTime }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }

// openEntry reads a file as it was in the backup folder, sealed again if it
// was sealed.
func openEntry(ctx context.Context, r *repo.Repo, e *tree.Entry) (io.ReadCloser, error) {
	f, err := openContent(ctx, r, &e.Content, time.Unix(0, e.ModTime))
	if err != nil || e.Encryption == nil {
		return f, err
	}
	return newSealing(f, keybag.FileKey(e.Encryption.Key)), nil
}

// sealing seals what it reads.
type sealing struct {
	src    *content
	sealer io.WriteCloser
	sealed bytes.Buffer
	buf    []byte
	err    error // how it ended
}

// sealingStep is how much is sealed at a time.
const sealingStep = 128 << 10

func newSealing(src *content, key keybag.FileKey) *sealing {
	s := &sealing{src: src, buf: make([]byte, min(sealingStep, src.info.size+1))}
	s.sealer = keybag.NewSealer(&s.sealed, key)
	return s
}

func (s *sealing) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.sealed.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.src.Read(s.buf)
		if _, werr := s.sealer.Write(s.buf[:n]); werr != nil {
			s.err = werr
		} else if errors.Is(err, io.EOF) {
			s.err = errors.Join(s.sealer.Close())
			if s.err == nil {
				s.err = io.EOF
			}
		} else if err != nil {
			// What is held back in the sealer must not look like an end.
			s.sealed.Reset()
			s.err = err
		}
	}
	return s.sealed.Read(p)
}

func (s *sealing) Close() error { return s.src.Close() }
