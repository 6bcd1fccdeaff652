package check

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"golang.org/x/sync/errgroup"
)

// choose returns the packs to read: those that were read longest ago, and all that
// have the wrong size.
func (c *Checker) choose(packs []backend.Info, past *readTimes) []backend.Info {
	if c.opts.ReadData >= 1 {
		return packs
	}
	packs = slices.Clone(packs)
	rng := rand.New(rand.NewPCG(c.opts.Seed, 0))
	rng.Shuffle(len(packs), func(i, j int) { packs[i], packs[j] = packs[j], packs[i] })
	slices.SortStableFunc(packs, func(a, b backend.Info) int { return past.of(a.Name).Compare(past.of(b.Name)) })
	want, bytes := c.opts.ReadPacks, int64(0)
	if c.opts.ReadData > 0 {
		// Round up, or a small fraction of a few packs would be none.
		want = max(want, int(math.Ceil(float64(len(packs))*c.opts.ReadData-1e-9)))
	}
	var out []backend.Info
	for i, f := range packs {
		id, _ := layout.ParseFileID(f.Name)
		p, _ := c.Store.Index.Pack(pack.ID(id))
		if i < want || bytes < c.opts.ReadBytes || p.Size != f.Size {
			out = append(out, f)
			bytes += f.Size
		}
	}
	return out
}

// readPacks verifies packs: first the families of blocks, then each pack with its
// other blocks.
func (c *Checker) readPacks(ctx context.Context, files []backend.Info) error {
	packs := make([]index.Pack, len(files))
	total := int64(0)
	for i, f := range files {
		id, _ := layout.ParseFileID(f.Name)
		packs[i], _ = c.Store.Index.Pack(pack.ID(id))
		total += f.Size
	}
	progress := func(int64) {}
	if c.opts.Progress != nil && total > 0 {
		var done atomic.Int64
		progress = func(n int64) { c.opts.Progress(min(done.Add(n), total), total) }
	}
	progress(0)
	p := newPlan(c.Store.Index, packs)
	var families atomic.Int64 // that were verified
	work := make(chan func(context.Context, *verifier) error)
	g, gctx := errgroup.WithContext(ctx)
	submit := func(job func(context.Context, *verifier) error) error {
		select {
		case work <- job:
			return nil
		case <-gctx.Done():
			return gctx.Err()
		}
	}
	g.Go(func() error {
		defer close(work)
		for _, family := range p.families {
			if err := submit(func(ctx context.Context, v *verifier) error {
				defer families.Add(1)
				return v.family(ctx, family, progress)
			}); err != nil {
				return err
			}
		}
		for i, f := range files {
			if err := submit(func(ctx context.Context, v *verifier) error {
				if err := v.verify(ctx, f); err != nil {
					return err
				}
				c.mu.Lock()
				c.Report.ReadPacks++
				c.Report.ReadBytes += f.Size
				c.noteVerified(f.Name)
				c.mu.Unlock()
				progress(f.Size - p.stored[i])
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	defer func() {
		if families.Load() < int64(len(p.families)) {
			clear(c.verified) // any pack may have blocks that were not verified
		}
	}()
	for range c.Store.Options.Workers {
		g.Go(func() error {
			v := c.newVerifier(p)
			for job := range work {
				if err := job(gctx, v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.verifySkipped(ctx, p)
}

// markDependents marks the chunks of blocks whose dictionary has a bad chunk, until it
// finds no more.
func (c *Checker) markDependents(ctx context.Context) {
	for changed := true; changed; {
		changed = false
		for _, p := range c.Store.Index.Packs() {
			for _, ref := range p.Blocks {
				_, dict := c.Store.Index.Dependencies(ref)
				if slices.ContainsFunc(dict, c.isLost) && c.markBlock(ref, func(id chunk.ID) bool { return c.hasOtherCopy(ctx, id) }) {
					changed = true
				}
			}
		}
	}
}

func (c *Checker) isBad(id chunk.ID) bool {
	_, bad := c.bad[id]
	return bad
}

// anyBad reports whether isBad is true for any of several chunks. It may be called
// while packs are read.
func (c *Checker) anyBad(ids []chunk.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(ids, c.isBad)
}

// isLost reports whether a chunk is bad or in no pack.
func (c *Checker) isLost(id chunk.ID) bool { return c.isBad(id) || !c.Store.Index.Has(id) }
