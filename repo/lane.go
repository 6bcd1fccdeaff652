package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/tree"
)

// ContentWriter is one goroutine's way into a Writer. What is stored through a lane in
// a row shares blocks, so files that are alike or are read together should
// come one behind the other.
type ContentWriter struct {
	w      *Writer
	kind   pack.Kind
	cutter *chunk.Cutter
	hasher *chunk.Hasher
	buf    []byte

	blockTarget, deltaTarget int

	full  run // new chunks without a predecessor
	delta run // new chunks that are likely to resemble others
}

// run is a block that is being filled.
type run struct {
	plain  []byte
	size   int // of the plaintext, also where it has not been read
	chunks []pack.Chunk
	near   bases     // chunks at the places where these were before
	far    bases     // and farther around
	place  place     // of the last chunk
	chain  chainWalk // of near
}

// place is a region of a file.
type place struct {
	file   *predecessor
	region int64
}

// joins reports whether a chunk at another place may join a run of so many
// bytes. Small files each need another block as their dictionary's, so fewer of
// them make a run.
func (p place) joins(o place, size int) bool {
	if p.file == o.file {
		return p.region == o.region
	}
	return size < blockTarget
}

// NewContentWriter opens a lane for the content of files.
func (w *Writer) NewContentWriter() *ContentWriter { return w.newContentWriter(pack.Content) }

func (w *Writer) newContentWriter(kind pack.Kind) *ContentWriter {
	l := &ContentWriter{w: w, kind: kind, hasher: w.r.NewHasher(), blockTarget: blockTarget, deltaTarget: deltaTarget}
	if kind == pack.Metadata {
		l.blockTarget, l.deltaTarget = nodeBlockTarget, nodeDeltaTarget
	}
	return l
}

// Store reads src to its end and returns its content, of which all that is new
// is on its way into the repository. prev is content that src is likely to
// resemble, such as an earlier version of the file; nil if there is none.
func (l *ContentWriter) Store(ctx context.Context, src io.Reader, prev *tree.Content) (tree.Content, error) {
	if l.cutter == nil {
		l.cutter = chunk.NewCutter(l.w.r.config.Polynomial)
		l.buf = make([]byte, chunk.MaxSize)
	}
	if err := l.cutter.Reset(src); err != nil {
		return tree.Content{}, err
	}
	old := l.w.r.newPredecessor(prev)
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
		id, err := l.add(ctx, data, size, old)
		if err != nil {
			return tree.Content{}, err
		}
		ids = append(ids, id)
		size += int64(len(data))
	}
	return tree.NewContent(ctx, l.w.SaveNode, size, ids)
}

// add stores one chunk, which lies at offset off of its file, unless it is
// known.
func (l *ContentWriter) add(ctx context.Context, data []byte, off int64, old *predecessor) (chunk.ID, error) {
	if err := l.w.alive(ctx); err != nil {
		return chunk.ID{}, err
	}
	id := l.hasher.ID(data)
	if !l.w.claim(id, len(data)) {
		old.met(id, off)
		return id, nil
	}
	c := pack.Chunk{ID: id, Length: uint32(len(data))}
	if near, far := old.around(ctx, off, len(data)); len(near) > 0 {
		return id, l.addDelta(ctx, data, c, near, far, place{old, off / deltaTarget})
	}
	return id, l.addFull(ctx, data, c)
}

// addNode stores a tree node or list. like is the node that it probably
// resembles.
func (l *ContentWriter) addNode(ctx context.Context, data []byte, like *chunk.ID) (chunk.ID, error) {
	id := l.hasher.ID(data)
	if !l.w.claim(id, len(data)) {
		return id, nil
	}
	c := pack.Chunk{ID: id, Length: uint32(len(data))}
	if like != nil {
		if size, ok := l.w.r.index.Size(*like); ok && l.w.r.index.Reusable(*like) {
			near := []base{{*like, size}}
			return id, l.addDelta(ctx, data, c, near, nil, place{&l.w.nodes, 0})
		}
	}
	return id, l.addFull(ctx, data, c)
}

// addFull puts a chunk into the run that stands alone.
func (l *ContentWriter) addFull(ctx context.Context, data []byte, c pack.Chunk) error {
	if len(data) >= aloneSize {
		return l.submit(ctx, &run{plain: append(l.w.buffers.get(len(data)), data...), size: len(data), chunks: []pack.Chunk{c}})
	}
	if !l.full.fits(len(data), l.blockTarget) {
		if err := l.flush(ctx, &l.full); err != nil {
			return err
		}
	}
	l.append(&l.full, data, c)
	return nil
}

// addDelta puts a chunk into the run that is to be encoded against others.
func (l *ContentWriter) addDelta(ctx context.Context, data []byte, c pack.Chunk, near, far []base, at place) error {
	if len(l.delta.chunks) > 0 && !l.delta.takes(l.w.r.index, len(data), l.deltaTarget, near, at) {
		if err := l.flush(ctx, &l.delta); err != nil {
			return err
		}
	}
	l.append(&l.delta, data, c)
	l.delta.leanOn(l.w.r.index, near, at)
	l.delta.far.add(far)
	return nil
}

func (r *run) fits(size, target int) bool {
	return r.size+size <= target && len(r.chunks) < pack.MaxBlockChunks
}

// takes reports whether another chunk, of so many bytes and with chunks at its
// place before, may join the run.
func (r *run) takes(x *index.Index, size, target int, near []base, at place) bool {
	return r.fits(size, target) && r.near.fit(near) && r.place.joins(at, r.size) &&
		(at.file == r.place.file || r.chain.with(x, near) <= joinedChain)
}

// leanOn notes what was at the place of the chunk that was added last.
func (r *run) leanOn(x *index.Index, near []base, at place) {
	r.chain.with(x, near)
	r.near.add(near)
	r.place = at
}

func (l *ContentWriter) append(r *run, data []byte, c pack.Chunk) {
	if r.plain == nil {
		r.plain = l.w.buffers.get(max(len(data), bufferSize))
	}
	r.plain = append(r.plain, data...)
	r.size += len(data)
	r.chunks = append(r.chunks, c)
}

// Flush hands on the open blocks, however small.
func (l *ContentWriter) Flush(ctx context.Context) error {
	if err := l.flush(ctx, &l.delta); err != nil {
		return err
	}
	return l.flush(ctx, &l.full)
}

func (l *ContentWriter) flush(ctx context.Context, r *run) error {
	if len(r.chunks) == 0 {
		return nil
	}
	full := *r
	*r = run{}
	return l.submit(ctx, &full)
}

func (l *ContentWriter) submit(ctx context.Context, r *run) error {
	select {
	case l.w.jobs <- job{l.kind, r}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.w.ctx.Done():
		return fmt.Errorf("storing was given up: %w", context.Cause(l.w.ctx))
	}
}

// bufferSize is the capacity of a usual buffer, in bytes.
const bufferSize = deltaTarget

// buffers go round between lanes and encoders. Usual blocks and large chunks
// are kept apart, or every small block would hold a large buffer.
type buffers struct{ blocks, chunks sync.Pool }

func (p *buffers) pool(size int) *sync.Pool {
	if size > bufferSize {
		return &p.chunks
	}
	return &p.blocks
}

func (p *buffers) get(size int) []byte {
	b, _ := p.pool(size).Get().(*[]byte)
	if b == nil || cap(*b) < size {
		return make([]byte, 0, max(size, bufferSize))
	}
	return (*b)[:0]
}

func (p *buffers) put(b []byte) { p.pool(cap(b)).Put(&b) }
