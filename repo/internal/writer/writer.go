// Package writer stores content, trees and snapshots in a repository.
//
// It cuts files into chunks and encodes these in blocks, as deltas to an earlier
// version if that saves space. It writes packs, index files and snapshot records in
// this order. It removes only files that it wrote itself.
package writer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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
	// BlockTarget is the greatest length of a block of several chunks, in bytes of
	// plaintext. Larger blocks compress better by about one percent, but make delta
	// chains costlier, since they need entire blocks.
	BlockTarget = 256 << 10
	// DeltaTarget is the same for deltas. A file is divided into regions of that
	// length, and a delta has chunks of one region only, so that versions of a region
	// need each other and nothing else.
	DeltaTarget = 1 << 20
	// Nodes have shorter blocks, since changed nodes are usually in different blocks.
	nodeBlockTarget = 64 << 10
	nodeDeltaTarget = 256 << 10
	// AloneSize is the length in bytes from which a chunk stored without a
	// dictionary is alone in its block. Other chunks in the block would hardly
	// improve compression, and reading this one would decode them, too.
	AloneSize = 256 << 10
	// indexEvery is how many packs are written before an index file lists them, so
	// that an interrupted backup loses at most about 1 GiB of work.
	indexEvery = 64
	// indexChunks is how many chunks may wait for an index file that lists them. A
	// waiting chunk takes five times the memory that it takes in the index.
	indexChunks = 100_000
	// maxSpare is how many buffers for packs are kept. One pack is being filled, one
	// waits, and one is stored; if storing is slow, encoders wait with more.
	maxSpare = 3
	// rescueTime bounds how long a failed or closed writer takes to list stored packs, and how
	// long a canceled one takes to enter its snapshot in the ledger.
	rescueTime = 30 * time.Second
)

// Writer stores the content of one snapshot. Each goroutine that passes content to
// it uses a ContentWriter of its own. The Writer compresses and seals blocks, and
// stores packs, in other goroutines, with bounded queues between them.
//
// A writer ends with Commit or Close. Close writes no snapshot, but keeps the packs
// that were stored, so that the next backup need not store them again.
type Writer struct {
	r      *store.Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  *errgroup.Group
	jobs   chan job
	sealed chan *pack.Builder
	closed bool

	buffers buffers
	spare   chan []byte // buffers for packs

	// Only the uploader uses these: packs that are durable but in no index file yet.
	indexFile *indexfile.Builder
	unlisted  []unlistedPack

	mu       sync.Mutex            // guards claimed, builders and stats
	claimed  map[chunk.ID]struct{} // chunks that are being stored and are not in the index yet
	builders [2]*pack.Builder      // by kind
	stats    record.WriteStats
	packs    atomic.Int64 // bytes of packs

	before record.WriteStats // of earlier writers of the same snapshot

	metaMu sync.Mutex     // guards meta
	meta   *ContentWriter // of tree nodes and lists
	nodes  Predecessor    // identifies the parent's tree
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
		spare:   make(chan []byte, maxSpare),
		claimed: map[chunk.ID]struct{}{},
	}
	w.indexFile = indexfile.NewBuilder(r, w.putIndex)
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

// PackBytes returns the bytes of the packs that were stored so far.
func (w *Writer) PackBytes() int64 { return w.packs.Load() }

// Stats returns what has been added so far.
func (w *Writer) Stats() record.WriteStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// Total returns what this writer and earlier ones of the same snapshot have added; see
// Continue.
func (w *Writer) Total() record.WriteStats { return w.Stats().Add(w.before) }

// pending counts chunks that were claimed and are in no index yet.
func (w *Writer) pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.claimed)
}

// Claim reports whether a chunk is new to the repository. If so, the caller must store
// it.
func (w *Writer) Claim(id chunk.ID, size int) bool {
	// Look in claimed and in the index under one lock, since putIndex moves chunks
	// from claimed to the index.
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

// SaveNode stores a tree node or content list; it is a tree.Save.
func (w *Writer) SaveNode(ctx context.Context, node []byte, like *chunk.ID) (chunk.ID, error) {
	w.metaMu.Lock()
	defer w.metaMu.Unlock()
	if err := w.Alive(ctx); err != nil {
		return chunk.ID{}, err
	}
	return w.meta.addNode(ctx, node, like)
}

// Alive returns an error if nothing can be stored any more.
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
	// All packs are in the index now, so no claimed chunk may remain. If a content
	// writer was not flushed, content refers to chunks that are never stored.
	if n := w.pending(); n > 0 {
		return fmt.Errorf("%d chunks were never stored: a content writer was not flushed", n)
	}
	return nil
}

// Continue adds the statistics of earlier writers of the same snapshot to those of
// this writer.
func (w *Writer) Continue(before record.WriteStats) { w.before = before }

// Now returns the time of the clock by which Commit dates snapshots.
func (w *Writer) Now() time.Time { return w.r.Options.Now().UTC() }

// Commit makes everything stored durable, then writes the snapshot record and enters it in
// the ledger. It fills in the record's statistics and ID. All content writers must have been
// flushed. If only the last step fails, the snapshot is stored nevertheless.
func (w *Writer) Commit(ctx context.Context, s *record.Snapshot) error {
	if err := w.Finish(ctx); err != nil {
		return fmt.Errorf("store the snapshot: %w", err)
	}
	ledger, err := record.EnterOthers(ctx, w.r)
	if err != nil {
		return fmt.Errorf("store the snapshot: %w", err)
	}
	st := w.Total()
	s.Version = record.SnapshotVersion
	s.StoredAt = w.Now()
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
		// A prune that did not see the snapshot may have removed chunks that the
		// snapshot needs.
		record.Withdraw(ctx, w.r, s.ID)
		return fmt.Errorf("store the snapshot: %w", err)
	}
	// Who cancels the backup now would make it again, although it is stored.
	ctx, cancel := canceledLater(ctx)
	defer cancel()
	if err := record.Enter(ctx, w.r, ledger, b); err != nil {
		return fmt.Errorf("snapshot %s is stored, but it could not be entered in the ledger; the next backup enters it: %w", s.ID.Short(), err)
	}
	return nil
}

// canceledLater returns a context that is canceled rescueTime after ctx.
func canceledLater(ctx context.Context) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(rescueTime, cancel) })
	return later, func() { stop(); cancel() }
}

// Close ends a writer without a snapshot. It lists stored packs in an index file, so
// that the next backup need not store them again. After Commit it does nothing.
func (w *Writer) Close() error {
	timer := time.AfterFunc(rescueTime, func() { w.cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	err := w.finish()
	w.cancel(context.Canceled)
	return err
}
