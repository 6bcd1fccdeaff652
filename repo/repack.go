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
			for pk := range work {
				for _, ref := range pk.Blocks {
					if err := c.block(gctx, pk.Kind, ref); err != nil {
						return fmt.Errorf("rewrite a pack: %w", err)
					}
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
	flat := c.u.flat[ref]
	if length == of && !flat {
		return c.w.place(kind, sealed, b)
	}
	var part []byte
	var chunks []pack.Chunk
	at := 0
	for i, ch := range b.Chunks {
		if keep[i] {
			part = append(part, plain[at:at+int(ch.Length)]...)
			chunks = append(chunks, ch)
		}
		at += int(ch.Length)
	}
	if len(b.Dict) > 0 && !flat {
		frame, err := c.codec.Delta(part, dict.b)
		if err != nil {
			return err
		}
		if sealed, err = c.codec.SealFrame(nil, frame); err != nil {
			return err
		}
		return c.w.place(kind, sealed, pack.Block{Encoding: pack.Delta, Dict: b.Dict, Chunks: chunks})
	}
	sealed, encoding, err := c.codec.Encode(nil, part)
	if err != nil {
		return err
	}
	return c.w.place(kind, sealed, pack.Block{Encoding: encoding, Chunks: chunks})
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
