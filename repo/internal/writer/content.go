package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/tree"
)

// ContentWriter stores files through a Writer. One goroutine uses it at a time.
// Files that are stored one after another share blocks, so files that are similar or
// read together should follow each other.
type ContentWriter struct {
	w      *Writer
	kind   pack.Kind
	cutter *chunk.Cutter
	hasher *chunk.Hasher
	small  []byte // a buffer for chunks; grows to MediaSize

	blockTarget, deltaTarget int

	full  Block // open block of new chunks without a predecessor
	delta Block // open block of new chunks with a predecessor
}

// cutBuffers are as large as the largest chunk. Content writers share them, since each
// needs one only while it stores a large file that is cut by content.
var cutBuffers = sync.Pool{New: func() any {
	b := make([]byte, chunk.MaxSize)
	return &b
}}

// Block is a block that is being filled.
type Block struct {
	Plain  []byte
	Size   int // of the plaintext; a planned block has no Plain yet
	Chunks []pack.Chunk
	Near   chain.Bases // near dictionary
	far    chain.Bases // far dictionary
	Region Region      // of the last chunk
	Chain  chain.Walk  // of Near
}

// Region is a region of a file.
type Region struct {
	File   *Predecessor
	Number int64
}

// mayJoin reports whether a chunk of region o may join a block of size bytes that
// ends with region p. A chunk of another file may join only a block that is smaller
// than BlockTarget: the bases of each file can be in other blocks, and a reader of the
// block must decode all of these.
func (p Region) mayJoin(o Region, size int) bool {
	if p.File == o.File {
		return p.Number == o.Number
	}
	return size < BlockTarget
}

// NewContentWriter returns a content writer for files.
func (w *Writer) NewContentWriter() *ContentWriter { return w.NewContentWriterOf(pack.Content) }

// NewContentWriterOf returns a content writer that fills packs of a kind.
func (w *Writer) NewContentWriterOf(kind pack.Kind) *ContentWriter {
	l := &ContentWriter{w: w, kind: kind, hasher: w.r.NewHasher(), blockTarget: BlockTarget, deltaTarget: DeltaTarget}
	if kind == pack.Metadata {
		l.blockTarget, l.deltaTarget = nodeBlockTarget, nodeDeltaTarget
	}
	return l
}

// Store reads src to its end, stores new chunks and returns its content. The chunks are
// durable after Finish or Commit of the Writer. prev is content that src probably
// resembles, such as an earlier version of the file, or nil.
func (l *ContentWriter) Store(ctx context.Context, src io.Reader, prev *tree.Content) (tree.Content, error) {
	if l.cutter == nil {
		l.cutter = chunk.NewCutter(l.w.r.Config.Polynomial)
	}
	if err := l.cutter.Reset(src); err != nil {
		return tree.Content{}, err
	}
	old := NewPredecessor(l.w.r, prev)
	if l.cutter.Media() && old.cutByContent(ctx) {
		l.cutter.CutMediaByContent()
	}
	buf, done := l.cutBuffer(l.cutter.BufferSize())
	defer done()
	var ids []chunk.ID
	size := int64(0)
	for {
		data, err := l.cutter.Next(buf)
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

// cutBuffer returns a buffer of at least size bytes. Call done when it is no longer needed.
func (l *ContentWriter) cutBuffer(size int) (buf []byte, done func()) {
	if size > chunk.MediaSize {
		large := cutBuffers.Get().(*[]byte)
		return *large, func() { cutBuffers.Put(large) }
	}
	if cap(l.small) < size {
		l.small = make([]byte, size)
	}
	return l.small, func() {}
}

// AddChunk stores data as one chunk, unless the repository has it.
func (l *ContentWriter) AddChunk(ctx context.Context, data []byte) (chunk.ID, error) {
	return l.add(ctx, data, 0, nil)
}

// add stores the chunk at offset off of a file, unless the repository has it.
func (l *ContentWriter) add(ctx context.Context, data []byte, off int64, old *Predecessor) (chunk.ID, error) {
	if err := l.w.Alive(ctx); err != nil {
		return chunk.ID{}, err
	}
	id := l.hasher.ID(data)
	if !l.w.Claim(id, len(data)) {
		old.NoteKnown(id, off)
		return id, nil
	}
	c := pack.Chunk{ID: id, Length: uint32(len(data))}
	if near, far := old.Around(ctx, off, len(data)); len(near) > 0 {
		return id, l.addDelta(ctx, data, c, near, far, Region{old, off / DeltaTarget})
	}
	return id, l.AddFull(ctx, data, c)
}

// addNode stores a tree node or content list. like, if not nil, is the node that it
// probably resembles.
func (l *ContentWriter) addNode(ctx context.Context, data []byte, like *chunk.ID) (chunk.ID, error) {
	id := l.hasher.ID(data)
	if !l.w.Claim(id, len(data)) {
		return id, nil
	}
	c := pack.Chunk{ID: id, Length: uint32(len(data))}
	if like != nil {
		if size, ok := l.w.r.Index.Size(*like); ok && l.w.r.Index.Reusable(*like) {
			near := []chain.Base{{ID: *like, Size: size}}
			return id, l.addDelta(ctx, data, c, near, nil, Region{&l.w.nodes, 0})
		}
	}
	return id, l.AddFull(ctx, data, c)
}

// AddFull stores a chunk without a dictionary: in the open block of such chunks, or in
// a block of its own if it is large.
func (l *ContentWriter) AddFull(ctx context.Context, data []byte, c pack.Chunk) error {
	if len(data) >= AloneSize {
		return l.submit(ctx, &Block{Plain: append(l.w.buffers.get(len(data)), data...), Size: len(data), Chunks: []pack.Chunk{c}})
	}
	if !l.full.fits(len(data), l.blockTarget) {
		if err := l.flush(ctx, &l.full); err != nil {
			return err
		}
	}
	l.append(&l.full, data, c)
	return nil
}

// addDelta adds a chunk to the open block that will be encoded as a delta.
func (l *ContentWriter) addDelta(ctx context.Context, data []byte, c pack.Chunk, near, far []chain.Base, at Region) error {
	if len(l.delta.Chunks) > 0 && !l.delta.MayTake(l.w.r.Index, len(data), l.deltaTarget, near, at) {
		if err := l.flush(ctx, &l.delta); err != nil {
			return err
		}
	}
	l.append(&l.delta, data, c)
	l.delta.AddBases(l.w.r.Index, near, at)
	l.delta.far.Add(far)
	return nil
}

func (b *Block) fits(size, target int) bool {
	return b.Size+size <= target && len(b.Chunks) < pack.MaxBlockChunks
}

// MayTake reports whether a chunk of size bytes with the bases near may join the
// block.
func (b *Block) MayTake(x *index.Index, size, target int, near []chain.Base, at Region) bool {
	return b.fits(size, target) && b.Near.Fits(near) && b.Region.mayJoin(at, b.Size) &&
		(at.File == b.Region.File || b.Chain.Visit(x, near) <= chain.MaxJoined)
}

// AddBases adds the bases of the chunk that was added last.
func (b *Block) AddBases(x *index.Index, near []chain.Base, at Region) {
	b.Chain.Visit(x, near)
	b.Near.Add(near)
	b.Region = at
}

func (l *ContentWriter) append(b *Block, data []byte, c pack.Chunk) {
	if b.Plain == nil {
		b.Plain = l.w.buffers.get(max(len(data), bufferSize))
	}
	b.Plain = append(b.Plain, data...)
	b.Size += len(data)
	b.Chunks = append(b.Chunks, c)
}

// Flush passes on the open blocks to be encoded, however small.
func (l *ContentWriter) Flush(ctx context.Context) error {
	if err := l.flush(ctx, &l.delta); err != nil {
		return err
	}
	return l.flush(ctx, &l.full)
}

func (l *ContentWriter) flush(ctx context.Context, b *Block) error {
	if len(b.Chunks) == 0 {
		return nil
	}
	ready := *b
	*b = Block{}
	return l.submit(ctx, &ready)
}

func (l *ContentWriter) submit(ctx context.Context, b *Block) error {
	select {
	case l.w.jobs <- job{l.kind, b}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.w.ctx.Done():
		return fmt.Errorf("storing has stopped: %w", context.Cause(l.w.ctx))
	}
}

// bufferSize is the capacity of a usual buffer, in bytes.
const bufferSize = DeltaTarget

// buffers are reused by content writers after encoders are done with them. There are
// two pools, since small blocks would otherwise hold the large buffers of large chunks.
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
