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

// repack writes what is in use in some packs into new ones, and planned blocks.
// They are durable and in the index when it returns. It returns the bytes written,
// and whether a block was stored in full that was a delta before.
func (p *pruner) repack(ctx context.Context, u *usage.Usage, packs []index.Pack, planned []*rebase.PlannedBlock) (written int64, full bool, err error) {
	w := writer.New(ctx, p.r)
	defer w.Close()
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan func(*copier) error)
	var alone atomic.Bool
	g.Go(func() error {
		defer close(work)
		for _, pk := range packs {
			if err := handOver(gctx, work, func(c *copier) error { return c.pack(gctx, pk) }); err != nil {
				return err
			}
		}
		for _, b := range planned {
			if err := handOver(gctx, work, func(c *copier) error { return c.planned(gctx, b) }); err != nil {
				return err
			}
		}
		return nil
	})
	for range p.r.Options.Workers {
		g.Go(func() error {
			c := copier{r: p.r, u: u, w: w, codec: pack.NewCodec(p.r.BlockSealer), alone: &alone}
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
	return w.Stats().Stored, alone.Load(), err
}

// handOver gives work to a copier that is free.
func handOver(ctx context.Context, work chan<- func(*copier) error, do func(*copier) error) error {
	select {
	case work <- do:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copier copies what is in use of blocks into a writer's packs.
type copier struct {
	r       *store.Store
	u       *usage.Usage
	w       *writer.Writer
	codec   *pack.Codec
	writers [2]*writer.ContentWriter // by kind: for chunks of full blocks, which share new blocks
	alone   *atomic.Bool
}

// pack copies what is to be kept of a pack.
func (c *copier) pack(ctx context.Context, pk index.Pack) error {
	whole, err := c.whole(ctx, pk)
	if err != nil {
		return err
	}
	for _, ref := range pk.Blocks {
		if whole != nil && c.asItIs(ref) {
			_, b := c.r.Index.Block(ref)
			err = c.w.AddBlock(pk.Kind, whole[b.Offset:b.Offset+b.Stored], b)
		} else {
			err = c.block(ctx, pk.Kind, ref)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxWhole bounds the packs that are read as a whole, in bytes: each worker holds
// one.
const maxWhole = 32 << 20

// whole returns the bytes of a pack of which most is to be copied as it is, if they
// are those that were once stored, by the pack's name, and hold what the index says. Its blocks need not be decoded
// then to know them for sound. Otherwise it returns nil: each block is looked at,
// which tells what is damaged. So it does where a chunk is in several packs, of
// which only one copy is kept.
func (c *copier) whole(ctx context.Context, pk index.Pack) ([]byte, error) {
	if pk.Size > maxWhole || c.u.Duplicates {
		return nil, nil
	}
	same := int64(0)
	for _, ref := range pk.Blocks {
		if c.asItIs(ref) {
			stored, _ := c.r.Index.Dependencies(ref)
			same += int64(stored)
		}
	}
	if same < pk.Size/2 {
		return nil, nil
	}
	whole := make([]byte, pk.Size)
	err := c.r.ReadSealed(ctx, pk.ID, whole, 0)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return nil, err
	}
	if err != nil || pack.Name(whole) != pk.ID {
		return nil, nil
	}
	// The index may say something else than the pack does.
	own, err := pack.ReadHeader(bytes.NewReader(whole), pk.Size, c.r.PackSealer)
	listed := indexfile.HeaderOf(c.r.Index, pk)
	if err != nil || !bytes.Equal(own.Append(nil), listed.Append(nil)) {
		return nil, nil
	}
	return whole, nil
}

// asItIs reports whether all of a block is to be kept, with its dictionary.
func (c *copier) asItIs(ref index.BlockRef) bool {
	_, length, of := c.u.Keep(ref)
	if length < of || c.u.Replaced(ref) {
		return false
	}
	_, b := c.r.Index.Block(ref)
	return !slices.ContainsFunc(b.Chunks, func(ch pack.Chunk) bool { return c.u.InPlan(ch.ID) })
}

// minOwnBlock is the length from which a planned block without a dictionary stays
// a block of its own, in bytes. Smaller ones share a block with others.
const minOwnBlock = writer.BlockTarget / 8

// planned stores a planned block.
func (c *copier) planned(ctx context.Context, u *rebase.PlannedBlock) error {
	if u.Sealed != nil {
		return c.w.AddBlock(u.Kind, u.Sealed, u.PackBlock)
	}
	if len(u.Dict) == 0 && u.Size < minOwnBlock { // shares a block with others
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

// block copies what is to be kept of a block, except what is in a planned block.
func (c *copier) block(ctx context.Context, kind pack.Kind, ref index.BlockRef) error {
	keep, length, of := c.u.Keep(ref)
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
	// Decoded even if it is copied as it is: what replaces the only copy must
	// be known to be sound.
	plain, err := c.r.Decode(nil, id, sealed, &b, dict.B)
	if err != nil {
		return err
	}
	if err := c.checkIDs(id, plain, b.Chunks); err != nil {
		return err
	}
	if length == of && !rebased {
		return c.w.AddBlock(kind, sealed, b)
	}
	wants := b.Dict
	if rebased {
		wants = nil // it may be gone
	}
	var part []byte
	var chunks []pack.Chunk
	at := 0
	for i, ch := range b.Chunks {
		switch {
		case !keep[i]:
		case len(wants) == 0:
			if err := c.writers[kind].AddFull(ctx, plain[at:at+int(ch.Length)], ch); err != nil {
				return err
			}
		default:
			part = append(part, plain[at:at+int(ch.Length)]...)
			chunks = append(chunks, ch)
		}
		at += int(ch.Length)
	}
	if len(wants) == 0 {
		return nil
	}
	frame, err := c.codec.CompressDelta(part, dict.B)
	if err != nil {
		return err
	}
	sealed, b, err = writer.SealBlock(c.codec, nil, &writer.Block{Plain: part, Chunks: chunks}, frame, wants)
	if err != nil {
		return err
	}
	if b.Encoding != pack.Delta {
		c.alone.Store(true)
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

// rewriteRebased writes the packs with blocks that are to have another
// dictionary. None of them goes before all are written: until then they may hold
// what others of them still need.
func (p *pruner) rewriteRebased(ctx context.Context, plan *prunePlan) (outcome, error) {
	var packs []index.Pack
	for _, pk := range p.r.Index.Packs() {
		if slices.ContainsFunc(pk.Blocks, plan.u.Replaced) {
			packs = append(packs, pk)
		}
	}
	_, err := p.rewrite(ctx, plan.u, packs, plan.rebase.Blocks, math.MaxInt64)
	if backend.IsNoSpace(err) {
		// The prune goes on without. What was written is unused.
		p.report.Rebased, err = 0, nil
	}
	return p.outcome(true), err
}

// rewrite writes packs anew, in parts of about limit bytes, and removes the old
// ones after each part. Planned blocks come with the first part; limit has to allow
// for one part alone if there are any.
func (p *pruner) rewrite(ctx context.Context, u *usage.Usage, packs []index.Pack, planned []*rebase.PlannedBlock, limit int64) (outcome, error) {
	another := false // a rewritten block needs its dictionary no more, which may be unused now
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
		written, full, err := p.repack(ctx, u, part, planned)
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
		p.r.Index.Compact() // what was copied is found at its new place
		if o, err := p.sweep(ctx, u); err != nil || o != finished {
			return o, err
		}
	}
	return p.outcome(another), nil
}
