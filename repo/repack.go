package repo

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"golang.org/x/sync/errgroup"
)

// repack writes what is in use in some packs into new ones, which are durable
// and in the index when it returns. It returns the bytes written.
func (p *pruner) repack(ctx context.Context, u *usage, packs []index.Pack) (int64, error) {
	w := p.r.NewWriter(ctx)
	defer w.Close()
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan index.Pack)
	g.Go(func() error {
		defer close(work)
		for _, pk := range packs {
			select {
			case work <- pk:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	for range p.r.opts.Workers {
		g.Go(func() error {
			c := copier{r: p.r, u: u, w: w, codec: pack.NewCodec(p.r.blocks)}
			for kind := range c.lanes {
				c.lanes[kind] = w.newLane(pack.Kind(kind))
			}
			for pk := range work {
				for _, ref := range pk.Blocks {
					if err := c.block(gctx, pk.Kind, ref); err != nil {
						return fmt.Errorf("rewrite a pack: %w", err)
					}
				}
			}
			for _, lane := range c.lanes {
				if err := lane.Flush(gctx); err != nil {
					return fmt.Errorf("rewrite a pack: %w", err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return w.Stats().Stored, err
	}
	err := w.Finish(ctx)
	return w.Stats().Stored, err
}

// copier copies what is in use of blocks into a writer's packs.
type copier struct {
	r     *Repo
	u     *usage
	w     *Writer
	codec *pack.Codec
	lanes [2]*Lane // by kind: what is left of blocks without a dictionary shares new ones
}

func (c *copier) block(ctx context.Context, kind pack.Kind, ref index.BlockRef) error {
	keep, length, of := c.u.keep(ref)
	if length == 0 {
		return nil
	}
	id, b := c.r.index.Block(ref)
	sealed := make([]byte, b.Stored)
	if err := c.r.readSealed(ctx, id, sealed, int64(b.Offset)); err != nil {
		return err
	}
	dict := scratch{}
	if len(b.Dict) > 0 {
		var err error
		if dict, _, err = c.r.dictionary(ctx, b.Dict, 1, detours{}); err != nil {
			return err
		}
		defer dict.free()
	}
	// Decoded even if it is copied as it is: what replaces the only copy must
	// be known to be sound.
	plain, err := c.r.decode(nil, id, sealed, &b, dict.b)
	if err != nil {
		return err
	}
	if err := c.checkIDs(id, plain, b.Chunks); err != nil {
		return err
	}
	other, rebased := c.u.rebased[ref]
	if length == of && !rebased {
		return c.w.place(kind, sealed, b)
	}
	wants := b.Dict
	if rebased {
		wants = other
	}
	var part []byte
	var chunks []pack.Chunk
	at := 0
	for i, ch := range b.Chunks {
		switch {
		case !keep[i]:
		case len(wants) == 0:
			if err := c.lanes[kind].addFull(ctx, plain[at:at+int(ch.Length)], ch); err != nil {
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
	if rebased {
		if dict, err = c.r.soundDictionary(ctx, wants); err != nil {
			wants = nil // as good, but for the room it takes
		}
		defer dict.free()
	}
	return c.encode(kind, &run{plain: part, chunks: chunks}, wants, dict.b)
}

// encode stores a block, with a dictionary or without.
func (c *copier) encode(kind pack.Kind, r *run, ids []chunk.ID, dict []byte) error {
	var frame []byte
	if len(ids) > 0 {
		var err error
		if frame, err = c.codec.Delta(r.plain, dict); err != nil {
			return err
		}
	}
	sealed, b, err := sealRun(c.codec, nil, r, frame, ids)
	if err != nil {
		return err
	}
	return c.w.place(kind, sealed, b)
}

func (c *copier) checkIDs(from pack.ID, plain []byte, chunks []pack.Chunk) error {
	for _, ch := range chunks {
		if err := c.r.checkID(plain[:ch.Length], from, chunk.ID(ch.ID)); err != nil {
			return err
		}
		plain = plain[ch.Length:]
	}
	return nil
}
