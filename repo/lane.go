package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/tree"
)

// Lane is one goroutine's way into a Writer. What is stored through a lane in
// a row shares blocks, so files that are alike or are read together should
// come one behind the other.
type Lane struct {
	w      *Writer
	kind   pack.Kind
	cutter *chunk.Cutter
	hasher *chunk.Hasher
	buf    []byte

	plain  []byte // the open block
	chunks []pack.Chunk
}

// NewLane opens a lane for the content of files.
func (w *Writer) NewLane() *Lane { return w.newLane(pack.Content) }

func (w *Writer) newLane(kind pack.Kind) *Lane {
	return &Lane{w: w, kind: kind, hasher: w.r.NewHasher()}
}

// Store reads src to its end and returns its content, of which all that is new
// is on its way into the repository.
func (l *Lane) Store(ctx context.Context, src io.Reader) (tree.Content, error) {
	if l.cutter == nil {
		l.cutter = chunk.NewCutter(l.w.r.config.Polynomial)
		l.buf = make([]byte, chunk.MaxSize)
	}
	if err := l.cutter.Reset(src); err != nil {
		return tree.Content{}, err
	}
	var ids []chunk.ID
	size := int64(0)
	for {
		data, err := l.cutter.Next(l.buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return tree.Content{}, err
		}
		id, err := l.add(ctx, data)
		if err != nil {
			return tree.Content{}, err
		}
		ids = append(ids, id)
		size += int64(len(data))
	}
	return tree.NewContent(ctx, l.w.SaveNode, size, ids)
}

// add stores one chunk unless it is known.
func (l *Lane) add(ctx context.Context, data []byte) (chunk.ID, error) {
	if err := ctx.Err(); err != nil {
		return chunk.ID{}, err
	}
	if err := l.w.ctx.Err(); err != nil {
		return chunk.ID{}, context.Cause(l.w.ctx)
	}
	id := l.hasher.ID(data)
	if !l.w.claim(id, len(data)) {
		return id, nil
	}
	c := pack.Chunk{ID: id, Length: uint32(len(data))}
	if len(data) >= aloneSize {
		return id, l.submit(ctx, append(l.w.buffers.get(len(data)), data...), []pack.Chunk{c})
	}
	if len(l.plain)+len(data) > blockTarget || len(l.chunks) == pack.MaxBlockChunks {
		if err := l.Flush(ctx); err != nil {
			return id, err
		}
	}
	if l.plain == nil {
		l.plain = l.w.buffers.get(blockTarget)
	}
	l.plain = append(l.plain, data...)
	l.chunks = append(l.chunks, c)
	return id, nil
}

// Flush hands on the open block, however small.
func (l *Lane) Flush(ctx context.Context) error {
	if len(l.chunks) == 0 {
		return nil
	}
	plain, chunks := l.plain, l.chunks
	l.plain, l.chunks = nil, nil
	return l.submit(ctx, plain, chunks)
}

func (l *Lane) submit(ctx context.Context, plain []byte, chunks []pack.Chunk) error {
	select {
	case l.w.jobs <- job{l.kind, plain, chunks}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.w.ctx.Done():
		return fmt.Errorf("storing was given up: %w", context.Cause(l.w.ctx))
	}
}

// buffers go round between lanes and encoders. Usual blocks and large chunks
// are kept apart, or every small block would hold a large buffer.
type buffers struct{ blocks, chunks sync.Pool }

func (p *buffers) pool(size int) *sync.Pool {
	if size > blockTarget {
		return &p.chunks
	}
	return &p.blocks
}

func (p *buffers) get(size int) []byte {
	b, _ := p.pool(size).Get().(*[]byte)
	if b == nil || cap(*b) < size {
		return make([]byte, 0, max(size, blockTarget))
	}
	return (*b)[:0]
}

func (p *buffers) put(b []byte) { p.pool(cap(b)).Put(&b) }
