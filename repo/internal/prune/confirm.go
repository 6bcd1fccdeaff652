package prune

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/usage"
	"golang.org/x/sync/errgroup"
)

// headersAtOnce is how many headers of packs are read at the same time.
const headersAtOnce = 8

// confirm makes sure that packs can be removed, whatever index files say. Whoever has the key and
// may only add files could add an index file that says that another pack holds what is in
// these ones, or that these hold something else. So confirm reads the headers of the packs
// themselves. Of each chunk in use, it reads the copy that will stay, and its bases, unless this
// prune has written that.
func (p *pruner) confirm(ctx context.Context, u *usage.Usage, packs map[pack.ID]bool) error {
	for _, err := range p.r.DamagedIndex { // it may have been loaded again
		return fmt.Errorf("prune: %w", err)
	}
	c := confirming{pruner: p, u: u, going: packs, read: map[chunk.ID]bool{}, safe: map[chunk.ID]bool{}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(headersAtOnce)
	for id := range packs {
		g.Go(func() error { return c.pack(ctx, id) })
	}
	return g.Wait()
}

// confirming is one call of confirm.
type confirming struct {
	*pruner
	u     *usage.Usage
	going map[pack.ID]bool

	mu   sync.Mutex // for the fields below and u, which is not safe for concurrent use
	read map[chunk.ID]bool
	safe map[chunk.ID]bool // bases whose first copies are good and stay
}

// pack looks at one pack.
func (c *confirming) pack(ctx context.Context, id pack.ID) error {
	info, err := c.r.Backend.Stat(ctx, layout.PackName(id))
	if errors.Is(err, backend.ErrNotExist) || err != nil && backend.Unreadable(ctx, c.r.Backend, err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove a pack: %w", err)
	}
	info.Name = layout.PackName(id)
	h, err := c.r.ReadHeader(ctx, info)
	if errors.Is(err, store.ErrDamaged) {
		return nil // nothing could be read from it
	}
	if err != nil {
		return fmt.Errorf("remove a pack: %w", err)
	}
	for _, ch := range c.needed(id, &h) {
		if err := c.chunk(ctx, ch); err != nil {
			return err
		}
	}
	return nil
}

// needed returns the chunks of a pack that are in use and not known to be elsewhere.
func (c *confirming) needed(id pack.ID, h *pack.Header) (needed []chunk.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	listed := map[chunk.ID]bool{} // that were in use when their pack was rewritten
	if pk, ok := c.r.Index.Pack(id); ok {
		for _, ref := range pk.Blocks {
			keep, _, _ := c.u.Keep(ref)
			_, b := c.r.Index.Block(ref)
			for i, ch := range b.Chunks {
				listed[ch.ID] = listed[ch.ID] || keep[i]
			}
		}
	}
	for _, b := range h.Blocks {
		for _, ch := range b.Chunks {
			if (listed[ch.ID] || c.u.Needs(ch.ID)) && !c.read[ch.ID] {
				c.read[ch.ID] = true
				needed = append(needed, ch.ID)
			}
		}
	}
	return needed
}

// chunk makes sure that a good copy of a chunk stays.
func (c *confirming) chunk(ctx context.Context, id chunk.ID) error {
	first, known := c.r.Index.Lookup(id)
	if known {
		if stays, err := c.stays(ctx, id, first, 0); err != nil || stays {
			return err
		}
	}
	for _, loc := range c.r.Index.Copies(id) { // this looks at all chunks that have several
		if stays, err := c.stays(ctx, id, loc, 0); err != nil || stays {
			return err
		}
	}
	return &store.DamageError{File: layout.PackName(first.Pack), Err: fmt.Errorf(
		"no pack was removed: the index says that chunk %s of a snapshot is here, and it is not; "+
			"`snap repair packs` removes the pack; if it does not, somebody has forged it: remove this file, then run `snap repair index`", id.Short())}
}

// stays reports whether a copy of a chunk is good and stays, with the bases that it needs. above
// is the number of blocks that need it.
func (c *confirming) stays(ctx context.Context, id chunk.ID, loc index.Location, above int) (bool, error) {
	if c.written[loc.Pack] || c.going[loc.Pack] {
		return !c.going[loc.Pack], nil
	}
	if above > pack.MaxDepth {
		return false, nil
	}
	err := c.r.CheckCopy(ctx, id, loc)
	if errors.Is(err, store.ErrDamaged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, bases := c.r.Index.Dependencies(loc.Block)
	for _, base := range bases {
		if stays, err := c.baseStays(ctx, base, above+1); err != nil || !stays {
			return false, err
		}
	}
	return true, nil
}

// baseStays is stays for the first copy of a base. To decode a block, other copies of its bases
// may have been read, which go.
func (c *confirming) baseStays(ctx context.Context, id chunk.ID, above int) (bool, error) {
	c.mu.Lock()
	safe := c.safe[id]
	c.mu.Unlock()
	if safe {
		return true, nil
	}
	loc, known := c.r.Index.Lookup(id)
	if !known {
		return false, nil
	}
	stays, err := c.stays(ctx, id, loc, above)
	if stays {
		c.mu.Lock()
		c.safe[id] = true
		c.mu.Unlock()
	}
	return stays, err
}

// noteWritten notes the packs that this prune has written: all that the index did not have.
func (p *pruner) noteWritten(before []index.Pack) {
	old := map[pack.ID]bool{}
	for _, pk := range before {
		old[pk.ID] = true
	}
	for _, pk := range p.r.Index.Packs() {
		if !old[pk.ID] {
			p.written[pk.ID] = true
		}
	}
}
