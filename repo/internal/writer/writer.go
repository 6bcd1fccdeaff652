// Package writer stores content, trees and snapshots in a repository.
//
// It cuts files into chunks, encodes these as blocks, against an earlier version
// where that saves room, and writes packs, index files and snapshot records in
// this order. It removes only what it wrote itself.
package writer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

const (
	// BlockTarget is the plaintext length at which a block of several chunks
	// is closed, in bytes. Larger blocks compress better by about one percent,
	// but make chains of deltas dearer, which need whole blocks.
	BlockTarget = 256 << 10
	// DeltaTarget is the same for blocks that are encoded against others. They
	// also end with the regions of that length that a file is divided into, so
	// that a region's versions need each other and nothing else.
	DeltaTarget = 1 << 20
	// Nodes of a tree that change lie far apart, each in another block.
	nodeBlockTarget = 64 << 10
	nodeDeltaTarget = 256 << 10
	// AloneSize is the length from which a chunk is a block of its own, in
	// bytes: there is little to gain from neighbours, and reading it should
	// not decode them.
	AloneSize = 256 << 10
	// indexEvery is how many packs are written before an index file lists
	// them, so that a killed run loses at most about 1 GiB of work.
	indexEvery = 64
	// rescueTime bounds how long Close keeps what an interrupted run stored.
	rescueTime = 30 * time.Second
)

// Writer stores the content of one snapshot. Goroutines feed it through content
// writers of their own. It compresses and seals blocks, and stores packs, in other
// goroutines, with bounded queues between them.
//
// A writer ends with Commit or Close. Close keeps the packs that were stored, so
// that the next backup need not store them again, but writes no snapshot.
type Writer struct {
	r      *store.Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  *errgroup.Group
	jobs   chan job
	sealed chan *pack.Builder
	closed bool

	buffers buffers

	// The uploader alone uses these: packs that are durable but in no index
	// file yet.
	unlisted *indexfile.Builder
	fresh    []freshPack

	mu       sync.Mutex            // guards what follows
	claimed  map[chunk.ID]struct{} // stored or on their way, not in the repository's index yet
	builders [2]*pack.Builder      // by kind
	stats    record.WriteStats

	before record.WriteStats // of earlier writers of the same snapshot

	metaMu sync.Mutex     // guards meta
	meta   *ContentWriter // of tree nodes and lists
	nodes  Predecessor    // stands for the parent's tree
}

// job is a block to be encoded.
type job struct {
	kind  pack.Kind
	block *Block
}

// New starts a writer. The index must have been loaded.
func New(ctx context.Context, r *store.Store) *Writer {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	group, gctx := errgroup.WithContext(inner)
	w := &Writer{
		r: r, ctx: gctx, cancel: cancel, group: group,
		jobs:    make(chan job, r.Options.Workers),
		sealed:  make(chan *pack.Builder, 1),
		claimed: map[chunk.ID]struct{}{},
	}
	w.unlisted = indexfile.NewBuilder(r, w.putIndex)
	w.meta = w.NewContentWriterOf(pack.Metadata)
	var encoders sync.WaitGroup
	for range r.Options.Workers {
		encoders.Add(1)
		group.Go(func() error { defer encoders.Done(); return w.encode() })
	}
	group.Go(func() error { return w.upload() })
	group.Go(func() error {
		encoders.Wait()
		defer close(w.sealed)
		return w.flushBuilders()
	})
	return w
}

// Stats returns what has been added so far.
func (w *Writer) Stats() record.WriteStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// pending counts chunks that were claimed and are in no index yet.
func (w *Writer) pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.claimed)
}

// Claim reports whether a chunk is new to the repository. If it is, the caller
// has to store it.
func (w *Writer) Claim(id chunk.ID, size int) bool {
	// Both under the lock: writeIndex moves chunks from one to the other.
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.claimed[id]; ok || w.r.Index.Reusable(id) {
		return false
	}
	w.claimed[id] = struct{}{}
	w.stats.Chunks++
	w.stats.Bytes += int64(size)
	return true
}

// SaveNode stores a tree node or list; it is a tree.Save.
func (w *Writer) SaveNode(ctx context.Context, node []byte, like *chunk.ID) (chunk.ID, error) {
	w.metaMu.Lock()
	defer w.metaMu.Unlock()
	if err := w.Alive(ctx); err != nil {
		return chunk.ID{}, err
	}
	return w.meta.addNode(ctx, node, like)
}

// Alive returns why nothing can be stored any more.
func (w *Writer) Alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return nil
}

var _ tree.Save = (*Writer)(nil).SaveNode

// encode compresses and seals blocks until there are no more.
func (w *Writer) encode() error {
	codec := pack.NewCodec(w.r.BlockSealer)
	var out []byte
	for j := range w.jobs {
		sealed, b, err := w.encodeBlock(codec, out[:0], j.block)
		if err != nil {
			return fmt.Errorf("encode a block: %w", err)
		}
		out = sealed
		w.buffers.put(j.block.Plain)
		if err := w.AddBlock(j.kind, sealed, b); err != nil {
			return err
		}
	}
	return nil
}

// finish drains the pipeline: blocks, packs, index.
func (w *Writer) finish() error {
	if !w.closed {
		w.closed = true
		close(w.jobs)
	}
	return w.group.Wait()
}

// Finish makes everything stored durable and ends the writer without a snapshot.
// Its chunks are in the index then, and another writer may continue. All content
// writers must have been flushed.
func (w *Writer) Finish(ctx context.Context) error {
	w.metaMu.Lock()
	err := w.meta.Flush(ctx)
	w.metaMu.Unlock()
	if err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// All packs are in the index now, so no chunk may be left. Others rely on the
	// chunks of a content writer that was not flushed, and nobody will store them.
	if n := w.pending(); n > 0 {
		return fmt.Errorf("%d chunks were never stored: a content writer was not flushed", n)
	}
	return nil
}

// Continue makes the statistics of the snapshot include what earlier writers
// have stored for it.
func (w *Writer) Continue(before record.WriteStats) { w.before = before }

// Commit makes everything stored durable, then writes the snapshot record. It fills
// in the record's statistics and ID. All content writers must have been flushed.
func (w *Writer) Commit(ctx context.Context, s *record.Snapshot) error {
	if err := w.Finish(ctx); err != nil {
		return fmt.Errorf("store the snapshot: %w", err)
	}
	st := w.Stats().Add(w.before)
	s.Version = record.SnapshotVersion
	s.StoredAt = w.r.Options.Now().UTC()
	s.NewChunks, s.NewBytes, s.StoredBytes = st.Chunks, st.Bytes, st.Stored
	b, err := record.Seal(w.r, s)
	if err != nil {
		return fmt.Errorf("seal the snapshot: %w", err)
	}
	if err := w.r.CheckLock(ctx); err != nil {
		return fmt.Errorf("store the snapshot: %w", err)
	}
	if s.ID, err = w.r.PutNamed(ctx, layout.SnapshotsDir, b); err != nil {
		return fmt.Errorf("store the snapshot: %w", err)
	}
	if err := w.r.CheckLock(ctx); err != nil {
		// What it needs may have been removed before it was there to be seen.
		_ = w.r.Backend.Delete(context.WithoutCancel(ctx), layout.SnapshotsDir+s.ID.String())
		return fmt.Errorf("store the snapshot: %w", err)
	}
	return nil
}

// Close ends a writer without a snapshot. What was stored complete is indexed,
// so that the next run need not store it again. After Commit it does nothing.
func (w *Writer) Close() error {
	timer := time.AfterFunc(rescueTime, func() { w.cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	err := w.finish()
	w.cancel(context.Canceled)
	return err
}
