package prune

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/rebase"
	"github.com/snap-backup/snap/repo/internal/usage"
)

// Packs below 1/smallPack of the usual size are merged if there are at least manyPacks
// of them.
const (
	smallPack = 8
	manyPacks = 32
)

// A rebase must free at least 1/worthWriting more of the bytes that it writes than a prune
// without it. If no unused bytes may remain, 1/worthAnyway is enough.
const (
	worthWriting = 16
	worthAnyway  = 128
)

// prunePlan is what a round of a prune will do. A prune finds out anew in each round what
// is in use, since other processes store data meanwhile.
type prunePlan struct {
	u      *usage.Usage
	rebase *rebase.Plan    // nil for no rebase
	dead   []layout.FileID // packs that hold nothing in use, or are in no index
	repack []index.Pack
}

// rebaseCost returns an estimate of how many bytes larger the rebased blocks will be.
func (plan *prunePlan) rebaseCost() int64 {
	if plan.rebase == nil {
		return 0
	}
	return plan.rebase.Cost
}

// makePlan finds out what is in use and plans a round.
func (p *pruner) makePlan(ctx context.Context) (*prunePlan, error) {
	p.opts.Progress("looking at snapshots", 0, 0)
	var forget []layout.FileID
	if p.opts.DryRun {
		forget = p.opts.Forget
	}
	u, err := usage.Find(ctx, p.r, forget...)
	if err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	for _, err := range p.r.DamagedIndex {
		return nil, fmt.Errorf("prune: %w", err)
	}
	rep := &p.report
	done := *rep
	*rep = Report{
		Snapshots: len(u.Snapshots), Waiting: []lock.Info{}, AbandonedRuns: done.AbandonedRuns, Rebased: done.Rebased,
		RemovedPacks: done.RemovedPacks, FreedBytes: done.FreedBytes, WrittenBytes: done.WrittenBytes,
	}
	p.spared = spared{}
	plan := &prunePlan{u: u}
	if p.opts.DryRun { // otherwise, a rebase is planned after unused packs are removed
		if err := p.planRebase(ctx, plan); err != nil {
			return nil, err
		}
	}
	known := map[pack.ID]index.Pack{}
	for _, pk := range p.r.Index.Packs() {
		known[pk.ID] = pk
	}
	retired, err := p.r.RetiredPacks(ctx)
	if err != nil {
		return nil, err
	}
	var partly []wasted
	var deadBytes int64
	err = p.r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil // not a pack
		}
		rep.Packs++
		rep.PackBytes += f.Size
		pk, ok := known[pack.ID(id)]
		if !ok || !slices.ContainsFunc(pk.Blocks, u.InUse) {
			if !retired[id] {
				plan.dead = append(plan.dead, id)
				deadBytes += f.Size
			}
			rep.PacksToRemove++
			rep.BytesToRemove += f.Size
			return nil
		}
		w := p.wasteOf(u, pk)
		rep.UsedBytes += w.used
		rep.BaseBytes += w.bases
		partly = append(partly, w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	if len(u.Snapshots) == 0 && rep.PacksToRemove > 0 && !p.opts.AllowEmpty && !p.opts.DryRun {
		if err := p.spare(ctx, plan, deadBytes); err != nil {
			return nil, err
		}
	}
	rep.UnusedBytes = rep.PackBytes - rep.UsedBytes
	chosen := p.choose(partly, plan.rebaseCost())
	plan.repack, rep.PacksToRepack, rep.BytesToRepack = chosen.packs, len(chosen.packs), chosen.used
	rep.BytesToFree = max(rep.BytesToRemove+chosen.waste-plan.rebaseCost(), 0)
	rep.KeptUnused = max(rep.PackBytes-rep.UsedBytes-rep.BytesToFree-plan.rebaseCost(), 0)
	return plan, nil
}

// spare removes the packs that nothing needs from a plan; bytes is their length. It is
// called if no snapshot is left: another process may be storing the first backup into
// these packs. If no other process is storing, spare fails with ErrNoSnapshots.
func (p *pruner) spare(ctx context.Context, plan *prunePlan, bytes int64) error {
	rep := &p.report
	storing, err := p.othersStore(ctx)
	if err != nil {
		return err
	}
	if len(storing) == 0 {
		return fmt.Errorf("%w, %s", ErrNoSnapshots, words.Plural(rep.PacksToRemove, "pack"))
	}
	p.spared = spared{locks: storing, packs: len(plan.dead), bytes: bytes}
	plan.dead, rep.PacksToRemove, rep.BytesToRemove = nil, 0, 0
	return nil
}

// othersStore returns the locks of other processes that store into the repository.
func (p *pruner) othersStore(ctx context.Context) ([]lock.Info, error) {
	locks, err := lock.List(ctx, p.r)
	return slices.DeleteFunc(locks, func(l lock.Info) bool { return l.Kind != lock.Write || lock.LeftBehind(l) }), err
}

// spared are packs that were not removed although no snapshot is left, since other
// processes may be storing the first one.
type spared struct {
	locks []lock.Info
	packs int
	bytes int64
}

// planRebase chooses blocks to store with another dictionary, and adds them to the
// plan. From then on, chunks that only the old blocks need count as unused. Some of them may
// remain, like other unused bytes. So a rebase that saves enough by itself may free little,
// or less than it writes; then there is none.
func (p *pruner) planRebase(ctx context.Context, plan *prunePlan) error {
	const phase = "looking at leftovers"
	p.opts.Progress(phase, 0, 0)
	without := p.forecast(plan.u, 0)
	allowed := p.opts.MaxUnused(without.packs)
	budget := int64(rebase.MaxBytes)
	if p.opts.MaxRepack >= 0 {
		budget = min(budget, p.opts.MaxRepack)
	}
	l, err := rebase.Find(ctx, plan.u, allowed/2, budget, func(done, total int64) { p.opts.Progress(phase, done, total) })
	if err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	if l == nil {
		return nil
	}
	plan.u.Apply(l)
	with, worth := p.forecast(plan.u, l.Cost), int64(worthWriting)
	if allowed == 0 {
		worth = worthAnyway
	}
	if with.freed-without.freed <= max(with.written-without.written, 0)/worth {
		plan.u.Apply(nil)
		return nil
	}
	plan.rebase = l
	p.report.Rebased = l.Len()
	return nil
}

// forecast is what a prune would do.
type forecast struct {
	packs          int64 // bytes of the packs that hold something in use
	freed, written int64
}

// forecast estimates what a prune would do that needs these chunks. cost is how many bytes
// larger it makes blocks.
func (p *pruner) forecast(u *usage.Usage, cost int64) (f forecast) {
	var partly []wasted
	for _, pk := range p.r.Index.Packs() {
		if !slices.ContainsFunc(pk.Blocks, u.InUse) {
			f.freed += pk.Size
			continue
		}
		f.packs += pk.Size
		partly = append(partly, p.wasteOf(u, pk))
	}
	chosen := p.choose(partly, cost)
	f.freed += chosen.waste - cost
	f.written = chosen.used + max(cost, 0)
	return f
}

// wasted describes a pack of which only a part may be in use.
type wasted struct {
	pack           index.Pack
	used, bases    int64 // bytes, with their part of the header
	small, rebased bool
}

func (w *wasted) waste() int64 { return w.pack.Size - w.used }

// wasteOf estimates how much of a pack is in use. If only some chunks of a block are
// in use, the block counts in proportion to their length.
func (p *pruner) wasteOf(u *usage.Usage, pk index.Pack) wasted {
	w := wasted{pack: pk}
	var blocks, used, bases int64
	for _, ref := range pk.Blocks {
		stored, _ := p.r.Index.Dependencies(ref)
		blocks += int64(stored)
		_, keep, total := u.Keep(ref)
		_, direct, _ := u.Used.Block(ref)
		used += int64(stored) * keep / max(total, 1)
		bases += int64(stored) * (keep - direct) / max(total, 1)
		w.rebased = w.rebased || u.Replaced(ref)
	}
	w.used = pk.Size * used / max(blocks, 1)
	w.bases = pk.Size * bases / max(blocks, 1)
	w.small = int(pk.Size) < p.r.Options.PackSize/smallPack
	return w
}

// chosen are the packs to repack.
type chosen struct {
	packs       []index.Pack
	used, waste int64 // bytes
}

// choose chooses the packs to repack: first those with blocks to rebase, since
// prune writes these first. Then it chooses those with the most waste for their
// size, until the remaining waste is allowed. If there are many small packs, it
// chooses these, too. cost is how many bytes larger the rebased blocks are.
func (p *pruner) choose(partly []wasted, cost int64) (c chosen) {
	slices.SortFunc(partly, func(a, b wasted) int {
		if a.rebased != b.rebased {
			if a.rebased {
				return -1
			}
			return 1
		}
		if c := cmp.Compare(b.waste()*a.pack.Size, a.waste()*b.pack.Size); c != 0 {
			return c
		}
		return slices.Compare(a.pack.ID[:], b.pack.ID[:])
	})
	remaining, used, written := int64(0), int64(0), p.report.WrittenBytes+max(cost, 0)
	small := map[pack.Kind]int{}
	for i := range partly {
		w := &partly[i]
		remaining += w.waste()
		used += w.used
		if w.small {
			small[w.pack.Kind]++
		}
	}
	allowed := p.opts.MaxUnused(used)
	for i := range partly {
		w := &partly[i]
		merge := w.small && small[w.pack.Kind] >= manyPacks
		if (remaining <= allowed || w.waste() == 0) && !merge && !w.rebased {
			continue
		}
		if p.opts.MaxRepack >= 0 && written+max(w.used, 1) > p.opts.MaxRepack {
			continue
		}
		written += w.used
		remaining -= w.waste()
		c.packs = append(c.packs, w.pack)
		c.used += w.used
		c.waste += w.waste()
	}
	return c
}
