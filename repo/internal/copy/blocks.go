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

// errUnlike says that a copy has other entries than its original.
var errUnlike = errors.New("unlike")

// prime learns chunk IDs from a snapshot that was copied before: both trees have
// the same entries, and each entry's chunks are in the same order. So what was
// copied once need not be read again. Whatever does not fit ends it, since all
// of it can be found out by reading content.
func (c *copying) prime(ctx context.Context, here, there *record.Snapshot) error {
	if c.primed[here.ID] {
		return nil
	}
	c.primed[here.ID] = true
	next, stop := iter.Pull(contents(ctx, c.to, there))
	defer stop()
	err := record.Walk(ctx, c.from, here, "", func(e *tree.Entry) error {
		other, ok := next()
		if !ok || other.key != e.Key() || other.size != e.Content.Size {
			return errUnlike
		}
		at := 0
		err := e.Content.Chunks(ctx, c.from.Chunk, func(id chunk.ID) error {
			if at == len(other.ids) {
				return errUnlike
			}
			to := other.ids[at]
			at++
			size, ok := c.from.Index.Size(id)
			if have, there := c.to.Index.Size(to); !ok || !there || have != size || !c.to.Index.Reusable(to) {
				return nil // it will be read
			}
			c.ids[id] = to
			return nil
		})
		return err
	})
	if errors.Is(err, errUnlike) || errors.Is(err, store.ErrDamaged) {
		return ctx.Err()
	}
	return err
}

// entryIDs is an entry and the chunks of its content.
type entryIDs struct {
	key  tree.Key
	size int64
	ids  []chunk.ID
}

// contents gives the entries of a snapshot as far as they can be read.
func contents(ctx context.Context, r *store.Store, s *record.Snapshot) iter.Seq[entryIDs] {
	return func(yield func(entryIDs) bool) {
		_ = record.Walk(ctx, r, s, "", func(e *tree.Entry) error {
			one := entryIDs{key: e.Key(), size: e.Content.Size}
			err := e.Content.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
				one.ids = append(one.ids, id)
				return nil
			})
			if err == nil && !yield(one) {
				err = errUnlike
			}
			return err
		})
	}
}

// content copies chunks. It returns the writer with which the last of them are on
// their way: the tree may follow them.
//
// Blocks come in rounds: one whose dictionary is among the chunks to be copied
// waits until these are durable and in the target's index. So no block of the
// target ever needs what a killed run has not stored.
func (c *copying) content(ctx context.Context, need map[chunk.ID]uint32) (*writer.Writer, error) {
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
		if err := c.blocks(ctx, w, ready, need); err != nil {
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

// split divides blocks into those whose dictionary will not get any better, and
// those that wait.
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
		return later, nil // damage: they wait for each other
	}
	return ready, later
}

// blocks copies what is needed of blocks.
func (c *copying) blocks(ctx context.Context, w *writer.Writer, refs []index.BlockRef, need map[chunk.ID]uint32) error {
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
			b := blockCopier{c: c, w: w, need: need, codec: pack.NewCodec(c.to.BlockSealer), hasher: c.to.NewHasher()}
			for ref := range work {
				if err := b.block(gctx, ref); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// blockCopier is one goroutine that copies blocks.
type blockCopier struct {
	c      *copying
	w      *writer.Writer
	need   map[chunk.ID]uint32
	codec  *pack.Codec // of the target
	hasher *chunk.Hasher
}

// block copies what is needed of one block.
func (k *blockCopier) block(ctx context.Context, ref index.BlockRef) error {
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
	dict, plain, err := k.open(ctx, id, &b, sealed.B)
	defer dict.Free()
	if err == nil {
		err = k.check(id, plain, b.Chunks, wanted)
	}
	if errors.Is(err, store.ErrDamaged) {
		return k.oneByOne(ctx, b.Chunks, wanted)
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
			if to, fresh := k.claim(ch.ID, data); fresh {
				part = append(part, data...)
				chunks = append(chunks, pack.Chunk{ID: to, Length: ch.Length})
			}
		}
	}
	if len(chunks) == 0 {
		return nil
	}
	bases, usable := k.bases(b.Dict, len(part))
	whole := len(chunks) == len(b.Chunks)
	switch {
	case whole && usable:
		// The same plaintext and the same dictionary: the frame is as good there.
		frame, err := from.BlockSealer.Open(nil, sealed.B, nil)
		if err != nil {
			return &store.DamageError{File: layout.PackName(id), Err: err}
		}
		return k.place(frame, pack.Block{Encoding: b.Encoding, Dict: bases, Chunks: chunks}, true)
	case usable && len(bases) > 0:
		frame, err := k.codec.CompressDelta(part, dict.B)
		if err != nil {
			return err
		}
		return k.place(frame, pack.Block{Encoding: pack.Delta, Dict: bases, Chunks: chunks}, false)
	}
	return k.full(part, chunks)
}

// open reads and decodes a block of the source.
func (k *blockCopier) open(ctx context.Context, id pack.ID, b *pack.Block, sealed []byte) (dict store.Scratch, plain []byte, err error) {
	from := k.c.from
	if dict, _, err = from.Dictionary(ctx, b.Dict, 1, store.Detours{}); err != nil {
		return store.Scratch{}, nil, err
	}
	if err = from.ReadSealed(ctx, id, sealed, int64(b.Offset)); err == nil {
		plain, err = from.Decode(nil, id, sealed, b, dict.B)
	}
	return dict, plain, err
}

// check compares the wanted chunks of a block with their IDs.
func (k *blockCopier) check(id pack.ID, plain []byte, chunks []pack.Chunk, wanted []bool) error {
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

// oneByOne copies chunks whose block is damaged, from wherever else they are.
func (k *blockCopier) oneByOne(ctx context.Context, chunks []pack.Chunk, wanted []bool) error {
	for i, ch := range chunks {
		if !wanted[i] {
			continue
		}
		data, err := k.c.from.Chunk(ctx, ch.ID)
		if err != nil {
			return err
		}
		if to, fresh := k.claim(ch.ID, data); fresh {
			if err := k.full(data, []pack.Chunk{{ID: to, Length: ch.Length}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim notes the target's ID of a chunk. fresh says that it has to be stored.
func (k *blockCopier) claim(id chunk.ID, data []byte) (to chunk.ID, fresh bool) {
	to = k.hasher.ID(data)
	fresh = k.w.Claim(to, len(data))
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids[id] = to
	c.done += int64(len(data))
	if c.opts.Progress != nil {
		c.opts.Progress(c.done, c.total)
	}
	return to, fresh
}

// bases returns a dictionary in the target's IDs if the target has all of it and
// the chain stays within its bounds. No dictionary is one, too.
func (k *blockCopier) bases(dict []chunk.ID, size int) ([]chunk.ID, bool) {
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

// full stores chunks as a block without a dictionary.
func (k *blockCopier) full(plain []byte, chunks []pack.Chunk) error {
	sealed, encoding, err := k.codec.Encode(nil, plain)
	if err != nil {
		return err
	}
	k.count(false)
	return k.w.AddBlock(pack.Content, sealed, pack.Block{Encoding: encoding, Chunks: chunks})
}

func (k *blockCopier) place(frame []byte, b pack.Block, taken bool) error {
	sealed, err := k.codec.SealFrame(nil, frame)
	if err != nil {
		return err
	}
	k.count(taken)
	return k.w.AddBlock(pack.Content, sealed, b)
}

func (k *blockCopier) count(taken bool) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if taken {
		k.c.report.TakenBlocks++
	} else {
		k.c.report.EncodedBlocks++
	}
}
