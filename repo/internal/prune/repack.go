package prune

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/rebase"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/usage"
	"github.com/snap-backup/snap/repo/internal/writer"
	"golang.org/x/sync/errgroup"
)

// repack copies the chunks in use of some packs to new packs, and stores planned
// blocks there. The new packs are durable and in the index when it returns. It
// returns the bytes of the new packs, and whether chunks of a delta were stored in full.
func (p *pruner) repack(ctx context.Context, u *usage.Usage, packs []index.Pack, planned []*rebase.PlannedBlock) (written int64, full bool, err error) {
	w := writer.New(ctx, p.r)
	defer w.Close()
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan func(*copier) error)
	var storedFull atomic.Bool
	g.Go(func() error {
		defer close(work)
		for _, pk := range packs {
			if err := handOver(gctx, work, func(c *copier) error { return c.copyPack(gctx, pk) }); err != nil {
				return err
			}
		}
		for _, b := range planned {
			if err := handOver(gctx, work, func(c *copier) error { return c.storePlanned(gctx, b) }); err != nil {
				return err
			}
		}
		return nil
	})
	for range p.r.Options.Workers {
		g.Go(func() error {
			c := copier{r: p.r, u: u, w: w, codec: pack.NewCodec(p.r.BlockSealer), storedFull: &storedFull}
			for kind := range c.writers {
				c.writers[kind] = w.NewContentWriterOf(pack.Kind(kind))
			}
			for do := range work {
				if err := do(&c); err != nil {
					return fmt.Errorf("rewrite a pack: %w", err)
				}
			}
			for _, cw := range c.writers {
				if err := cw.Flush(gctx); err != nil {
					return fmt.Errorf("rewrite a pack: %w", err)
				}
			}
			return nil
		})
	}
	err = g.Wait()
	if err == nil {
		err = w.Finish(ctx)
	}
	return w.PackBytes(), storedFull.Load(), err
}

// handOver passes work to the next free copier.
func handOver(ctx context.Context, work chan<- func(*copier) error, do func(*copier) error) error {
	select {
	case work <- do:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copier copies those chunks of blocks that are in use into a writer's packs.
type copier struct {
	r       *store.Store
	u       *usage.Usage
	w       *writer.Writer
	codec   *pack.Codec
	writers [2]*writer.ContentWriter // by kind of pack; they join chunks of full blocks in new blocks

	storedFull *atomic.Bool // set when a delta is stored in full
}

// copyPack copies the chunks of a pack that are kept.
func (c *copier) copyPack(ctx context.Context, pk index.Pack) error {
	file, err := c.readPack(ctx, pk)
	if err != nil {
		return err
	}
	for _, ref := range pk.Blocks {
		if file != nil && c.isUnchanged(ref) {
			_, b := c.r.Index.Block(ref)
			err = c.w.AddBlock(pk.Kind, file[b.Offset:b.Offset+b.Stored], b)
		} else {
			err = c.copyBlock(ctx, pk.Kind, ref)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxRead bounds the length of packs that are read completely, in bytes, since each
// worker holds one.
const maxRead = 32 << 20

// readPack returns the bytes of a pack if at least half of it can be copied
// unchanged, its bytes match its name and its header matches the index. The blocks
// are then known to be good without decoding them. Otherwise readPack returns nil,
// and each block must be decoded to find damage. It also returns nil if chunks are
// in several packs, since only one copy of each is kept.
func (c *copier) readPack(ctx context.Context, pk index.Pack) ([]byte, error) {
	if pk.Size > maxRead || c.u.Duplicates {
		return nil, nil
	}
	same := int64(0)
	for _, ref := range pk.Blocks {
		if c.isUnchanged(ref) {
			stored, _ := c.r.Index.Dependencies(ref)
			same += int64(stored)
		}
	}
	if same < pk.Size/2 {
		return nil, nil
	}
	file := make([]byte, pk.Size)
	err := c.r.ReadSealed(ctx, pk.ID, file, 0)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return nil, err
	}
	if err != nil || pack.Name(file) != pk.ID {
		return nil, nil
	}
	own, err := pack.ReadHeader(bytes.NewReader(file), pk.Size, c.r.PackSealer)
	listed := indexfile.HeaderOf(c.r.Index, pk)
	if err != nil || !bytes.Equal(own.Append(nil), listed.Append(nil)) {
		return nil, nil
	}
	return file, nil
}

// isUnchanged reports whether a block is kept unchanged: all of its chunks are in
// use, and the plan neither replaces the block nor stores its chunks elsewhere.
func (c *copier) isUnchanged(ref index.BlockRef) bool {
	_, length, total := c.u.Keep(ref)
	if length < total || c.u.Replaced(ref) {
		return false
	}
	_, b := c.r.Index.Block(ref)
	return !slices.ContainsFunc(b.Chunks, func(ch pack.Chunk) bool { return c.u.InPlan(ch.ID) })
}

// minOwnBlock is the least length of a planned block without a dictionary, in
// bytes. Chunks of shorter ones are joined in blocks with other chunks.
const minOwnBlock = writer.BlockTarget / 8

// storePlanned stores a planned block.
func (c *copier) storePlanned(ctx context.Context, u *rebase.PlannedBlock) error {
	if u.Sealed != nil {
		return c.w.AddBlock(u.Kind, u.Sealed, u.PackBlock)
	}
	if len(u.Dict) == 0 && u.Size < minOwnBlock {
		r, err := rebase.Gather(ctx, c.r, u)
		if err != nil {
			return err
		}
		for i, ch := range u.Chunks {
			if err := c.writers[u.Kind].AddFull(ctx, r.Plain[:ch.Length], u.Chunks[i]); err != nil {
				return err
			}
			r.Plain = r.Plain[ch.Length:]
		}
		return nil
	}
	sealed, b, err := rebase.Seal(ctx, c.r, c.codec, u)
	if err != nil {
		return err
	}
	return c.w.AddBlock(u.Kind, sealed, b)
}

// copyBlock copies the chunks of a block that are kept, except chunks in planned
// blocks.
func (c *copier) copyBlock(ctx context.Context, kind pack.Kind, ref index.BlockRef) error {
	keep, length, total := c.u.Keep(ref)
	_, listed := c.r.Index.Block(ref)
	for i, ch := range listed.Chunks {
		if keep[i] && c.u.InPlan(ch.ID) {
			keep[i] = false
			length -= int64(ch.Length)
		}
	}
	if length == 0 {
		return nil
	}
	rebased := c.u.Replaced(ref)
	id, b := c.r.Index.Block(ref)
	sealed := make([]byte, b.Stored)
	if err := c.r.ReadSealed(ctx, id, sealed, int64(b.Offset)); err != nil {
		return err
	}
	dict := store.Scratch{}
	if len(b.Dict) > 0 {
		var err error
		if dict, _, err = c.r.Dictionary(ctx, b.Dict, 1, store.Detours{}); err != nil {
			return err
		}
		defer dict.Free()
	}
	// Decode it even if it is copied unchanged: the new copy replaces the only one,
	// so it must be known to be good.
	plain, err := c.r.Decode(nil, id, sealed, &b, dict.B)
	if err != nil {
		return err
	}
	if err := c.checkIDs(id, plain, b.Chunks); err != nil {
		return err
	}
	if length == total && !rebased {
		return c.w.AddBlock(kind, sealed, b)
	}
	bases := b.Dict
	if rebased {
		bases = nil // this prune may remove them
	}
	var part []byte
	var chunks []pack.Chunk
	at := 0
	for i, ch := range b.Chunks {
		switch {
		case !keep[i]:
		case len(bases) == 0:
			if err := c.writers[kind].AddFull(ctx, plain[at:at+int(ch.Length)], ch); err != nil {
				return err
			}
		default:
			part = append(part, plain[at:at+int(ch.Length)]...)
			chunks = append(chunks, ch)
		}
		at += int(ch.Length)
	}
	if len(bases) == 0 {
		return nil
	}
	frame, err := c.codec.CompressDelta(part, dict.B)
	if err != nil {
		return err
	}
	sealed, b, err = writer.SealBlock(c.codec, nil, &writer.Block{Plain: part, Chunks: chunks}, frame, bases)
	if err != nil {
		return err
	}
	if b.Encoding != pack.Delta {
		c.storedFull.Store(true)
	}
	return c.w.AddBlock(kind, sealed, b)
}

func (c *copier) checkIDs(from pack.ID, plain []byte, chunks []pack.Chunk) error {
	for _, ch := range chunks {
		if err := c.r.CheckID(plain[:ch.Length], from, chunk.ID(ch.ID)); err != nil {
			return err
		}
		plain = plain[ch.Length:]
	}
	return nil
}

// rewriteRebased rewrites the packs with blocks to rebase. It removes no old pack
// before all new ones are written, since blocks of one pack may need chunks of
// another.
func (p *pruner) rewriteRebased(ctx context.Context, plan *prunePlan) (outcome, error) {
	var packs []index.Pack
	for _, pk := range p.r.Index.Packs() {
		if slices.ContainsFunc(pk.Blocks, plan.u.Replaced) {
			packs = append(packs, pk)
		}
	}
	_, err := p.rewrite(ctx, plan.u, packs, plan.rebase.Blocks, math.MaxInt64)
	if backend.IsNoSpace(err) {
		// The prune continues without the rebase. The blocks written so far are
		// unused.
		p.report.Rebased, err = 0, nil
	}
	return p.outcome(true), err
}

// rewrite repacks packs in parts of about limit bytes, and removes the old packs
// after each part. It would store planned blocks with each part, so if there are
// any, limit must allow for all packs in one part.
func (p *pruner) rewrite(ctx context.Context, u *usage.Usage, packs []index.Pack, planned []*rebase.PlannedBlock, limit int64) (outcome, error) {
	another := false // a delta was stored in full, so its bases may be unused now
	total := int64(0)
	for i := range packs {
		total += packs[i].Size
	}
	for done := int64(0); len(packs) > 0; {
		n, size := 0, int64(0)
		for n < len(packs) && (n == 0 || size < limit) {
			size += packs[n].Size
			n++
		}
		part := packs[:n]
		packs = packs[n:]
		p.opts.Progress("rewriting packs", done, total)
		before := p.r.Index.Packs()
		written, full, err := p.repack(ctx, u, part, planned)
		p.noteWritten(before)
		p.report.WrittenBytes += written
		if err != nil {
			return finished, err
		}
		another = another || full
		done += size
		var ids []layout.FileID
		for _, pk := range part {
			ids = append(ids, layout.FileID(pk.ID))
			p.r.Index.Retire(pk.ID)
			u.Moved[pk.ID] = true
		}
		if _, err := p.r.PutPruneList(ctx, ids); err != nil {
			return finished, err
		}
		p.r.Index.Compact() // so that Lookup finds the new copies
		if o, err := p.sweep(ctx, u); err != nil || o != finished {
			return o, err
		}
	}
	return p.outcome(another), nil
}
