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
	slices.SortStableFunc(packs, func(a, b backend.Info) int { return past.lastRead(a.Name).Compare(past.lastRead(b.Name)) })
	want, bytes := c.opts.ReadPacks, int64(0)
	if c.opts.ReadData > 0 {
		// Round up: a small fraction of a few packs must not be 0 packs.
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

// readPacks reads packs and verifies them, all or, with Options.Sample, a sample of them.
func (c *Checker) readPacks(ctx context.Context, files []backend.Info, past *readTimes) error {
	m := &progress{report: c.opts.Progress}
	m.expect(files)
	if !c.opts.Sample || !c.proven() {
		return c.verifyPacks(ctx, files, m)
	}
	known := len(c.Report.Problems)
	sample, rest := c.sample(files, past)
	good, err := c.comparePacks(ctx, rest, m)
	if err != nil {
		return err
	}
	if good {
		if err := c.verifyPacks(ctx, sample, m); err != nil {
			return err
		}
		good = len(c.Report.Problems) == known && len(c.bad) == 0
	}
	if good {
		return nil
	}
	// Something is damaged. To report everything that is lost, and why, decode all packs.
	c.Report.ReadPacks, c.Report.ReadBytes, c.Report.DecodedPacks = 0, 0, 0
	c.Report.Problems, c.skipped, c.orphans = c.Report.Problems[:known], nil, nil
	clear(c.bad)
	clear(c.verified)
	clear(c.decoded)
	m.expect(files)
	return c.verifyPacks(ctx, files, m)
}

// verifyPacks verifies packs: first the families of blocks, then each pack with its
// other blocks.
func (c *Checker) verifyPacks(ctx context.Context, files []backend.Info, m *progress) error {
	packs := make([]index.Pack, len(files))
	for i, f := range files {
		packs[i] = c.indexed(f)
	}
	p := newPlan(c.Store.Index, packs)
	var families atomic.Int64 // number of verified families
	defer func() {
		if families.Load() < int64(len(p.families)) {
			for _, pk := range packs { // any of them may have blocks that were not verified
				delete(c.verified, pk.ID)
				delete(c.decoded, pk.ID)
			}
		}
	}()
	err := c.work(ctx, p, func(submit func(job) error) error {
		for _, family := range p.families {
			if err := submit(func(ctx context.Context, v *verifier) error {
				defer families.Add(1)
				return v.verifyFamily(ctx, family, m.add)
			}); err != nil {
				return err
			}
		}
		for i, f := range files {
			if err := submit(func(ctx context.Context, v *verifier) error {
				if err := v.verifyPack(ctx, f); err != nil {
					return err
				}
				c.noteRead(f)
				c.noteDecoded(f)
				m.add(f.Size - p.stored[i])
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.verifySkipped(ctx, p)
}

// job is a part of a check that a verifier does.
type job func(context.Context, *verifier) error

// work calls all, which submits jobs, and does these jobs, several at a time.
func (c *Checker) work(ctx context.Context, p *plan, all func(submit func(job) error) error) error {
	jobs := make(chan job)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(jobs)
		return all(func(j job) error {
			select {
			case jobs <- j:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		})
	})
	for range c.Store.Options.Workers {
		g.Go(func() error {
			v := c.newVerifier(p)
			for j := range jobs {
				if err := j(gctx, v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// progress tells how many bytes of packs were read. Several goroutines may add.
type progress struct {
	report      func(done, total int64)
	done, total atomic.Int64
}

// expect adds packs to those to be read.
func (m *progress) expect(files []backend.Info) {
	for _, f := range files {
		m.total.Add(f.Size)
	}
	m.add(0)
}

func (m *progress) add(n int64) {
	done, total := m.done.Add(n), m.total.Load()
	if m.report != nil && total > 0 {
		m.report(min(done, total), total)
	}
}

// markDependents marks the chunks of a block as bad if its dictionary has a lost chunk.
// It goes through all blocks until it marks nothing new.
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
