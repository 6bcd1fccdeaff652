package copy

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// errDifferent says that a copy has other entries than its original.
var errDifferent = errors.New("the copy has other entries")

// learnIDs learns the target's chunk IDs from a snapshot that was copied before: both
// trees have the same entries, and each entry's chunks are in the same order. This
// saves reading content that was copied before. It passes over entries that only one of
// the trees has, since the other repository has lost them or marked them as lost. It stops
// without an error at the first entry that differs, since reading content gives the IDs, too.
func (c *copying) learnIDs(ctx context.Context, original, copied *record.Snapshot) error {
	if c.learned[original.ID] {
		return nil
	}
	c.learned[original.ID] = true
	next, stop := iter.Pull(entryChunks(ctx, c.to, copied))
	defer stop()
	other, more := next()
	err := walkReadable(ctx, c.from, original, func(e *tree.Entry) error {
		for more && other.key.Compare(e.Key()) < 0 {
			other, more = next()
		}
		switch {
		case !more:
			return errDifferent
		case other.key != e.Key():
			return nil
		case other.size != e.Content.Size:
			return errDifferent
		}
		at := 0
		err := e.Content.Chunks(ctx, c.from.Chunk, func(id chunk.ID) error {
			if at == len(other.ids) {
				return errDifferent
			}
			to := other.ids[at]
			at++
			size, ok := c.from.Index.Size(id)
			if have, inTarget := c.to.Index.Size(to); !ok || !inTarget || have != size || !c.to.Index.Reusable(to) {
				return nil // copy it again
			}
			c.ids[id] = to
			return nil
		})
		return unlessDamaged(ctx, err)
	})
	if errors.Is(err, errDifferent) {
		return ctx.Err()
	}
	return err
}

// walkReadable calls fn for the entries of a snapshot that can be read.
func walkReadable(ctx context.Context, r *store.Store, s *record.Snapshot, fn func(*tree.Entry) error) error {
	w := record.NodeWalk{Load: r.Chunk, OnEntry: fn, Seen: map[chunk.ID]bool{}}
	w.OnLost = func(record.LostNode, error) error { return nil }
	return w.Node(ctx, s.Root, -1)
}

// unlessDamaged returns err, or nil if it is damage.
func unlessDamaged(ctx context.Context, err error) error {
	if record.Damaged(ctx, err) {
		return nil
	}
	return err
}

// entryIDs is an entry and the chunks of its content.
type entryIDs struct {
	key  tree.Key
	size int64
	ids  []chunk.ID
}

// entryChunks yields the entries of a snapshot whose lists of chunks can be read.
func entryChunks(ctx context.Context, r *store.Store, s *record.Snapshot) iter.Seq[entryIDs] {
	return func(yield func(entryIDs) bool) {
		_ = walkReadable(ctx, r, s, func(e *tree.Entry) error {
			next := entryIDs{key: e.Key(), size: e.Content.Size}
			err := e.Content.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
				if next.ids = append(next.ids, id); len(next.ids) > store.MaxChunks {
					return errDifferent
				}
				return nil
			})
			if err == nil && !yield(next) {
				err = errDifferent
			}
			return unlessDamaged(ctx, err)
		})
	}
}

// copyContent copies chunks. It returns the writer that stores the last of them.
// The tree is stored through the same writer. It calls lost for each chunk that cannot be
// read, and goes on if lost returns nil.
//
// It copies blocks in rounds. If the bases of a block must be copied, too, the block
// waits until they are durable and in the target's index. So no stored block ever
// needs a chunk that an interrupted copy did not store.
func (c *copying) copyContent(ctx context.Context, need map[chunk.ID]uint32, lost func(error) error) (*writer.Writer, error) {
	refs := map[index.BlockRef]bool{}
	for id := range need {
		loc, ok := c.from.Index.Lookup(id)
		if ok {
			refs[loc.Block] = true
		}
	}
	pending := slices.Sorted(maps.Keys(refs))
	var before record.WriteStats
	for {
		w := writer.New(ctx, c.to)
		w.Continue(before)
		ready, later := c.split(pending, need)
		if err := c.copyBlocks(ctx, w, ready, need, lost); err != nil {
			_ = w.Close() // the first failure is the one to report
			return nil, err
		}
		if len(later) == 0 {
			return w, nil
		}
		if err := w.Finish(ctx); err != nil {
			_ = w.Close()
			return nil, err
		}
		before = before.Add(w.Stats())
		pending = later
	}
}

// split divides blocks into those that can be copied now and those that must wait
// for their bases.
func (c *copying) split(pending []index.BlockRef, need map[chunk.ID]uint32) (ready, later []index.BlockRef) {
	for _, ref := range pending {
		_, dict := c.from.Index.Dependencies(ref)
		waits := slices.ContainsFunc(dict, func(id chunk.ID) bool {
			_, wanted := need[id]
			_, done := c.ids[id]
			return wanted && !done
		})
		if waits {
			later = append(later, ref)
		} else {
			ready = append(ready, ref)
		}
	}
	if len(ready) == 0 {
		return later, nil // a cycle, which only damage causes: they wait for each other
	}
	return ready, later
}

// copyBlocks copies the needed chunks of blocks.
func (c *copying) copyBlocks(ctx context.Context, w *writer.Writer, refs []index.BlockRef, need map[chunk.ID]uint32, lost func(error) error) error {
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan index.BlockRef)
	g.Go(func() error {
		defer close(work)
		for _, ref := range refs {
			select {
			case work <- ref:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	for range c.to.Options.Workers {
		g.Go(func() error {
			b := blockCopier{c: c, w: w, need: need, lost: lost, codec: pack.NewCodec(c.to.BlockSealer), hasher: c.to.NewHasher()}
			for ref := range work {
				if err := b.copyBlock(gctx, ref); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// blockCopier is the state of one goroutine that copies blocks.
type blockCopier struct {
	c      *copying
	w      *writer.Writer
	need   map[chunk.ID]uint32
	lost   func(error) error // see copyContent
	codec  *pack.Codec       // of the target
	hasher *chunk.Hasher
}

// copyBlock copies the needed chunks of one block.
func (k *blockCopier) copyBlock(ctx context.Context, ref index.BlockRef) error {
	if err := k.w.Alive(ctx); err != nil {
		return err
	}
	from := k.c.from
	id, b := from.Index.Block(ref)
	wanted := make([]bool, len(b.Chunks))
	for i, ch := range b.Chunks {
		_, is := k.need[ch.ID]
		loc, ok := from.Index.Lookup(ch.ID)
		wanted[i] = is && ok && loc.Block == ref
	}
	sealed := from.Scratch.Take(int(b.Stored))
	defer sealed.Free()
	dict, plain, err := k.openBlock(ctx, id, &b, sealed.B)
	defer dict.Free()
	if err == nil {
		err = k.checkChunks(id, plain, b.Chunks, wanted)
	}
	if errors.Is(err, store.ErrDamaged) {
		return k.copyChunks(ctx, b.Chunks, wanted)
	}
	if err != nil {
		return err
	}
	var part []byte
	var chunks []pack.Chunk
	at := 0
	for i, ch := range b.Chunks {
		data := plain[at : at+int(ch.Length)]
		at += len(data)
		if wanted[i] {
			if to, isNew := k.claim(ch.ID, data); isNew {
				part = append(part, data...)
				chunks = append(chunks, pack.Chunk{ID: to, Length: ch.Length})
			}
		}
	}
	if len(chunks) == 0 {
		return nil
	}
	bases, usable := k.targetBases(b.Dict, len(part))
	complete := len(chunks) == len(b.Chunks)
	switch {
	case complete && usable:
		// With the same plaintext and dictionary, the frame can be reused.
		frame, err := from.BlockSealer.Open(nil, sealed.B, nil)
		if err != nil { // it was corrected
			frame, err = from.BlockSealer.Open(nil, from.Correct(id, sealed.B), nil)
		}
		if err != nil {
			return &store.DamageError{File: layout.PackName(id), Err: err}
		}
		return k.addFrame(frame, pack.Block{Encoding: b.Encoding, Dict: bases, Chunks: chunks}, true)
	case usable && len(bases) > 0:
		frame, err := k.codec.CompressDelta(part, dict.B)
		if err != nil {
			return err
		}
		return k.addFrame(frame, pack.Block{Encoding: pack.Delta, Dict: bases, Chunks: chunks}, false)
	}
	return k.storeFull(part, chunks)
}

// openBlock reads and decodes a block of the source.
func (k *blockCopier) openBlock(ctx context.Context, id pack.ID, b *pack.Block, sealed []byte) (dict store.Scratch, plain []byte, err error) {
	from := k.c.from
	if dict, _, err = from.Dictionary(ctx, b.Dict, 1, store.Detours{}); err != nil {
		return store.Scratch{}, nil, err
	}
	if err = from.ReadSealed(ctx, id, sealed, int64(b.Offset)); err == nil {
		plain, err = from.Decode(nil, id, sealed, b, dict.B)
	}
	return dict, plain, err
}

// checkChunks compares the wanted chunks of a block with their IDs.
func (k *blockCopier) checkChunks(id pack.ID, plain []byte, chunks []pack.Chunk, wanted []bool) error {
	for i, ch := range chunks {
		if wanted[i] {
			if err := k.c.from.CheckID(plain[:ch.Length], id, ch.ID); err != nil {
				return err
			}
		}
		plain = plain[ch.Length:]
	}
	return nil
}

// copyChunks copies the chunks of a damaged block from their other copies.
func (k *blockCopier) copyChunks(ctx context.Context, chunks []pack.Chunk, wanted []bool) error {
	for i, ch := range chunks {
		if !wanted[i] {
			continue
		}
		data, err := k.c.from.Chunk(ctx, ch.ID)
		if record.Damaged(ctx, err) {
			if err := k.noteLost(err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if to, isNew := k.claim(ch.ID, data); isNew {
			if err := k.storeFull(data, []pack.Chunk{{ID: to, Length: ch.Length}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteLost calls lost, one goroutine at a time.
func (k *blockCopier) noteLost(err error) error {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.lost(err)
}

// claim records the target's ID of a chunk. isNew reports whether the caller must
// store it.
func (k *blockCopier) claim(id chunk.ID, data []byte) (to chunk.ID, isNew bool) {
	to = k.hasher.ID(data)
	isNew = k.w.Claim(to, len(data))
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids[id] = to
	c.done += int64(len(data))
	if c.opts.Progress != nil {
		c.opts.Progress(c.done, c.total)
	}
	return to, isNew
}

// targetBases returns a dictionary in the target's IDs, and whether it can be used: the
// target must have all of its chunks, and the chain must stay within its bounds. An
// empty dictionary can be used.
func (k *blockCopier) targetBases(dict []chunk.ID, size int) ([]chunk.ID, bool) {
	if len(dict) == 0 {
		return nil, true
	}
	out := make([]chunk.ID, len(dict))
	k.c.mu.Lock()
	for i, id := range dict {
		out[i] = k.c.ids[id]
	}
	k.c.mu.Unlock()
	walk := chain.NewWalk(k.c.to.Index)
	for _, id := range out {
		depth, ok := walk.Depth(id, 0)
		if !ok || depth >= chain.MaxDepth || !k.c.to.Index.Reusable(id) {
			return nil, false
		}
	}
	return out, walk.Stored <= max(chain.Factor*size, chain.MinStored)
}

// storeFull stores chunks as a block without a dictionary.
func (k *blockCopier) storeFull(plain []byte, chunks []pack.Chunk) error {
	sealed, encoding, err := k.codec.Encode(nil, plain)
	if err != nil {
		return err
	}
	k.count(false)
	return k.w.AddBlock(pack.Content, sealed, pack.Block{Encoding: encoding, Chunks: chunks})
}

// addFrame seals a frame and stores it. reused says that it was not encoded again.
func (k *blockCopier) addFrame(frame []byte, b pack.Block, reused bool) error {
	sealed, err := k.codec.SealFrame(nil, frame)
	if err != nil {
		return err
	}
	k.count(reused)
	return k.w.AddBlock(pack.Content, sealed, b)
}

func (k *blockCopier) count(reused bool) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if reused {
		k.c.report.TakenBlocks++
	} else {
		k.c.report.EncodedBlocks++
	}
}
