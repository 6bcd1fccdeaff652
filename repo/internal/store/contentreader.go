package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/tree"
)

// ContentReader reads the content of a file at any offset. Every byte that it
// returns was authenticated; damage is an error that wraps ErrDamaged.
//
// Several goroutines may use its ReadAt at the same time, but only one may use Read
// and Seek.
type ContentReader struct {
	ctx  context.Context
	r    *Store
	size int64
	ids  []chunk.ID
	ends []int64 // offset of the end of each chunk
	pos  int64   // of Read

	mu   sync.Mutex // guards the chunk that was used last
	last int        // the number of that chunk plus 1; 0 for none
	data []byte
}

// MaxChunks bounds the chunks of a file whose chunks are all held in memory. It is
// enough for a database of 256 GiB.
const MaxChunks = 1 << 22

// ErrTooManyChunks says that a file has more than MaxChunks. A few short lists can amount
// to so many chunks if they refer to the same lists again and again.
var ErrTooManyChunks error = &DamageError{"", errors.New("a file has more chunks than fit into memory")}

// NewContentReader returns a reader of a content. It looks up where the chunks
// are and reads none of them. The reader uses ctx for all of its reads. The
// index must have been loaded.
func (r *Store) NewContentReader(ctx context.Context, c *tree.Content) (*ContentReader, error) {
	f := &ContentReader{ctx: ctx, r: r, size: c.Size}
	sizeErr := &DamageError{"", fmt.Errorf("a file has %d bytes, but its chunks have a different length", c.Size)}
	off := int64(0)
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		size, ok := r.Index.Size(id)
		if !ok {
			return r.UnknownChunk(id)
		}
		if off += int64(size); off > c.Size {
			return sizeErr
		}
		if f.ids, f.ends = append(f.ids, id), append(f.ends, off); len(f.ids) > MaxChunks {
			return ErrTooManyChunks
		}
		return nil
	})
	if err == nil && off != c.Size {
		err = sizeErr
	}
	if err != nil {
		return nil, fmt.Errorf("open content: %w", TreeDamage(err))
	}
	return f, nil
}

// Size returns the length of the content in bytes.
func (f *ContentReader) Size() int64 { return f.size }

// ReadAt implements io.ReaderAt.
func (f *ContentReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := 0
	for n < len(p) {
		i := f.chunkAt(off)
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

// chunkAt returns the number of the chunk that has the byte at an offset, or
// the number of chunks if the offset is at or after the end.
func (f *ContentReader) chunkAt(off int64) int {
	return sort.Search(len(f.ends), func(i int) bool { return f.ends[i] > off })
}

func (f *ContentReader) chunk(i int) ([]byte, error) {
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

// Read implements io.Reader. It stops at the end of a chunk, since the next one may
// have to be decoded first.
func (f *ContentReader) Read(p []byte) (int, error) {
	i := f.chunkAt(f.pos)
	if i == len(f.ends) {
		return 0, io.EOF
	}
	n, err := f.ReadAt(p[:min(int64(len(p)), f.ends[i]-f.pos)], f.pos)
	f.pos += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (f *ContentReader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.pos
	case io.SeekEnd:
		off += f.size
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	f.pos = off
	return off, nil
}
