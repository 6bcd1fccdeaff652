// Package prune frees what no snapshot and no unfinished backup needs.
//
// Backups may go on meanwhile, and it can be interrupted anywhere: what snapshots
// need is always there. It never removes a pack that a running process may rely
// on; docs/decisions says why that holds.
package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/rebase"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/usage"
)

const (
	// roundBytes is how much prune rewrites before it removes what it has
	// replaced: so much more room it takes at most while it works.
	roundBytes = 256 << 20
	// Packs below a part of the usual size are worth putting together when
	// there are many of them.
	smallPack  = 8 // of the usual size, as a divisor
	manyPacks  = 32
	defaultAge = 14 * 24 * time.Hour
)

// Options say what Prune may leave and do.
type Options struct {
	// MaxUnused returns how many bytes of waste may stay in packs that hold
	// other things, given how many bytes are in use. Nil allows 5 %.
	MaxUnused func(used int64) int64
	// MaxRepack bounds the bytes that are written anew; negative for no bound.
	MaxRepack int64
	// Abandoned is the age from which a device backup that broke off counts as
	// given up; 14 days by default.
	Abandoned time.Duration
	// DryRun changes nothing.
	DryRun bool
	// Forget are snapshots that a dry run takes for forgotten.
	Forget []layout.FileID
	// Reserve makes a new reserve at the end, if there is none or it has become
	// too small. See MakeReserve.
	Reserve bool
	// Progress, if not nil, is told what is being done, and how far it is.
	Progress func(phase string, done, total int64)
}

// Report says what Prune has found and done, or would do.
type Report struct {
	Snapshots int   `json:"snapshots"`
	Packs     int   `json:"packs"`
	PackBytes int64 `json:"pack_bytes"`

	UsedBytes   int64 `json:"used_bytes"`   // that snapshots need
	BaseBytes   int64 `json:"base_bytes"`   // of these, needed only to decode others
	UnusedBytes int64 `json:"unused_bytes"` // that nothing needs

	RemovePacks int   `json:"remove_packs"` // that hold nothing in use
	RemoveBytes int64 `json:"remove_bytes"`
	RepackPacks int   `json:"repack_packs"` // to be written anew without waste
	RepackBytes int64 `json:"repack_bytes"`
	Rebased     int   `json:"rebased_blocks"` // stored anew, as a difference to something else or to nothing
	KeptUnused  int64 `json:"kept_unused_bytes"`
	FreeBytes   int64 `json:"free_bytes"` // the repository shrinks by this, as far as can be told before

	AbandonedRuns int `json:"abandoned_runs"` // unfinished backups that were given up

	// What was done.
	RemovedPacks int   `json:"removed_packs"`
	FreedBytes   int64 `json:"freed_bytes"`
	WrittenBytes int64 `json:"written_bytes"`
	// Packs that go with the next prune, since others are at work that began
	// before this one.
	PendingPacks int         `json:"pending_packs"`
	PendingBytes int64       `json:"pending_bytes"`
	Waiting      []lock.Info `json:"waiting"`
}

// pruner is one run of Prune.
type pruner struct {
	r      *store.Store
	opts   Options
	report Report
	stale  bool // what was looked up is not true any more
}

// Run frees what no snapshot and no unfinished backup needs. The caller holds
// a lock of kind LockPrune, but for a dry run. Backups may go on meanwhile. It
// can be stopped at any point; the next one goes on.
//
// It refuses a repository that has lost something a snapshot needs, with an
// ErrDamaged: what is left may be what a repair needs.
func Run(ctx context.Context, r *store.Store, opts Options) (*Report, error) {
	if opts.MaxUnused == nil {
		opts.MaxUnused = func(used int64) int64 { return used / 20 }
	}
	if opts.Abandoned == 0 {
		opts.Abandoned = defaultAge
	}
	if opts.Progress == nil {
		opts.Progress = func(string, int64, int64) {}
	}
	p := &pruner{r: r, opts: opts, report: Report{Waiting: []lock.Info{}}}
	if opts.DryRun {
		_, err := p.look(ctx)
		return &p.report, err
	}
	if !lock.Holds(r, lock.Prune) {
		return nil, errors.New("prune: the repository is not locked for that")
	}
	err := p.prune(ctx)
	if err != nil && errors.Is(r.CheckLock(ctx), store.ErrLockLost) && !errors.Is(err, store.ErrLockLost) {
		// Another prune has gone on meanwhile. What looks like damage is its work.
		err = fmt.Errorf("prune: %w, after which it failed: %v", store.ErrLockLost, err)
	}
	return &p.report, err
}

func (p *pruner) prune(ctx context.Context) error {
	p.r.UseReserve()
	if err := p.abandon(ctx); err != nil {
		return err
	}
	// Others may store while this one works; what they add is looked at then,
	// and not for ever.
	rebased := false
	for range 4 {
		p.stale = false
		plan, err := p.look(ctx)
		if err != nil {
			return err
		}
		// First what is to go without anything being written: a full disk has room
		// again then.
		if err := p.removeDead(ctx, plan); err != nil {
			return err
		}
		if !p.stale && len(p.report.Waiting) == 0 {
			work := p.rewriteWaste
			if !rebased {
				rebased = true
				if err := p.rebase(ctx, plan); err != nil {
					return err
				}
				if plan.rebase != nil {
					work = p.rewriteRebased
				}
			}
			if err := work(ctx, plan); err != nil {
				return err
			}
		}
		if !p.stale || len(p.report.Waiting) > 0 {
			break
		}
	}
	if p.opts.Reserve {
		if err := p.r.MakeReserve(ctx); err != nil && !backend.IsNoSpace(err) {
			return err
		}
	}
	return p.pending(ctx)
}

// abandon removes the records of unfinished backups that nobody will go on
// with.
func (p *pruner) abandon(ctx context.Context) error {
	runs, _, err := record.ListUnfinished(ctx, p.r)
	if err != nil {
		return err
	}
	for _, u := range runs {
		if !p.given(u) {
			continue
		}
		if err := record.RemoveUnfinished(ctx, p.r, u); err != nil {
			return err
		}
		p.report.AbandonedRuns++
	}
	return nil
}

// given reports whether an unfinished backup was given up. A changed password
// is kept: the next backup of the device needs it, whenever that is.
func (p *pruner) given(u *record.Unfinished) bool {
	return u.Kind == record.UnfinishedBackup && p.r.Options.Now().Sub(u.Saved) > p.opts.Abandoned
}

// prunePlan is what is to be done.
type prunePlan struct {
	u      *usage.Usage
	rebase *rebase.Plan    // nil if nothing is to be rebased
	dead   []layout.FileID // hold nothing in use, or are in no index
	repack []index.Pack    // are to be written anew
}

// rebaseCost estimates by how many bytes rebased blocks will be larger.
func (plan *prunePlan) rebaseCost() int64 {
	if plan.rebase == nil {
		return 0
	}
	return plan.rebase.Cost
}

// look finds out what is in use and plans what to do.
func (p *pruner) look(ctx context.Context) (*prunePlan, error) {
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
	plan := &prunePlan{u: u}
	if p.opts.DryRun {
		if err := p.rebase(ctx, plan); err != nil {
			return nil, err
		}
	}
	known := map[pack.ID]index.Pack{}
	for _, pk := range p.r.Index.Packs() {
		known[pk.ID] = pk
	}
	announced, err := p.r.AnnouncedPacks(ctx)
	if err != nil {
		return nil, err
	}
	var partly []wasted
	small := map[pack.Kind]int{}
	err = p.r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil // not one of ours
		}
		rep.Packs++
		rep.PackBytes += f.Size
		pk, ok := known[pack.ID(id)]
		if !ok || !slices.ContainsFunc(pk.Blocks, u.Live) {
			if !announced[id] {
				plan.dead = append(plan.dead, id)
			}
			rep.RemovePacks++
			rep.RemoveBytes += f.Size
			return nil
		}
		w := p.waste(u, pk)
		rep.UsedBytes += w.used
		rep.BaseBytes += w.bases
		if int(pk.Size) < p.r.Options.PackSize/smallPack {
			small[pk.Kind]++
			w.small = true
		}
		partly = append(partly, w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	rep.UnusedBytes = rep.PackBytes - rep.UsedBytes
	p.choose(plan, partly, small)
	rep.FreeBytes = max(rep.RemoveBytes+rep.FreeBytes-plan.rebaseCost(), 0)
	rep.KeptUnused = max(rep.PackBytes-rep.UsedBytes-rep.FreeBytes-plan.rebaseCost(), 0)
	return plan, nil
}

// rebase chooses blocks to store with another dictionary. From then on, what
// these lean on counts as waste.
func (p *pruner) rebase(ctx context.Context, plan *prunePlan) error {
	const phase = "looking at leftovers"
	p.opts.Progress(phase, 0, 0)
	used := int64(0)
	for _, pk := range p.r.Index.Packs() {
		if slices.ContainsFunc(pk.Blocks, plan.u.Live) {
			used += pk.Size
		}
	}
	budget := int64(rebase.MaxBytes)
	if p.opts.MaxRepack >= 0 {
		budget = min(budget, p.opts.MaxRepack)
	}
	l, err := rebase.Find(ctx, plan.u, p.opts.MaxUnused(used)/2, budget, func(done, total int64) { p.opts.Progress(phase, done, total) })
	if err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	if l != nil {
		plan.rebase = l
		plan.u.Apply(l)
		p.report.Rebased = l.Len()
	}
	return nil
}

// rewriteRebased writes the packs with blocks that are to have another
// dictionary. None of them goes before all are written: until then they may hold
// what others of them still need.
func (p *pruner) rewriteRebased(ctx context.Context, plan *prunePlan) error {
	var packs []index.Pack
	for _, pk := range p.r.Index.Packs() {
		if slices.ContainsFunc(pk.Blocks, plan.u.Replaced) {
			packs = append(packs, pk)
		}
	}
	err := p.rewrite(ctx, plan.u, packs, plan.rebase.Blocks, math.MaxInt64)
	if backend.IsNoSpace(err) {
		// It does without. What was written is waste.
		p.report.Rebased, err = 0, nil
	}
	p.stale = true
	return err
}

// rewriteWaste writes the packs with much waste.
func (p *pruner) rewriteWaste(ctx context.Context, plan *prunePlan) error {
	return p.rewrite(ctx, plan.u, plan.repack, nil, roundBytes)
}

// wasted is a pack with something in use.
type wasted struct {
	pack           index.Pack
	used, bases    int64 // bytes, with the part of the header that belongs to it
	small, rebased bool
}

func (w *wasted) waste() int64 { return w.pack.Size - w.used }

// waste estimates how much of a pack is in use. Of a block that is in use in
// part, it takes the part of its length.
func (p *pruner) waste(u *usage.Usage, pk index.Pack) wasted {
	w := wasted{pack: pk}
	var blocks, used, bases int64
	for _, ref := range pk.Blocks {
		stored, _ := p.r.Index.Dependencies(ref)
		blocks += int64(stored)
		_, keep, of := u.Keep(ref)
		_, direct, _ := u.Used.Block(ref)
		used += int64(stored) * keep / max(of, 1)
		bases += int64(stored) * (keep - direct) / max(of, 1)
		w.rebased = w.rebased || u.Replaced(ref)
	}
	w.used = pk.Size * used / max(blocks, 1)
	w.bases = pk.Size * bases / max(blocks, 1)
	return w
}

// choose picks the packs to write anew: those with blocks that are to have
// another dictionary, and then those with most waste for their size, until what
// is left is allowed. The first go first, since prune writes them before it looks
// for other waste. Small packs, where there are many, come along.
func (p *pruner) choose(plan *prunePlan, partly []wasted, small map[pack.Kind]int) {
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
	left, written := int64(0), p.report.WrittenBytes+max(plan.rebaseCost(), 0)
	for i := range partly {
		left += partly[i].waste()
	}
	allowed := p.opts.MaxUnused(p.report.UsedBytes)
	for i := range partly {
		w := &partly[i]
		merge := w.small && small[w.pack.Kind] >= manyPacks
		if (left <= allowed || w.waste() == 0) && !merge && !w.rebased {
			continue
		}
		if p.opts.MaxRepack >= 0 && written+max(w.used, 1) > p.opts.MaxRepack {
			continue
		}
		written += w.used
		left -= w.waste()
		plan.repack = append(plan.repack, w.pack)
		p.report.RepackPacks++
		p.report.RepackBytes += w.used
		p.report.FreeBytes += w.waste()
	}
}

// removeDead removes what nothing needs, and what earlier runs have announced.
func (p *pruner) removeDead(ctx context.Context, plan *prunePlan) error {
	if len(plan.dead) > 0 {
		if _, err := p.r.PutPruneList(ctx, plan.dead); err != nil {
			return err
		}
	}
	p.opts.Progress("removing packs", 0, 0)
	return p.sweep(ctx, plan.u)
}

// rewrite writes packs anew, in rounds of so many bytes, and removes them. Units
// come with each round; there is one when there are units.
func (p *pruner) rewrite(ctx context.Context, u *usage.Usage, packs []index.Pack, units []*rebase.PlannedBlock, limit int64) error {
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
		round := packs[:n]
		packs = packs[n:]
		p.opts.Progress("rewriting packs", done, total)
		written, err := p.repack(ctx, u, round, units)
		p.report.WrittenBytes += written
		if err != nil {
			return err
		}
		done += size
		var ids []layout.FileID
		for _, pk := range round {
			ids = append(ids, layout.FileID(pk.ID))
			p.r.Index.Retire(pk.ID)
			u.Moved[pk.ID] = true
		}
		if _, err := p.r.PutPruneList(ctx, ids); err != nil {
			return err
		}
		p.r.Index.Compact() // what was copied is found at its new place
		stale := p.stale
		p.stale = false
		if err := p.sweep(ctx, u); err != nil {
			return err
		}
		if p.stale || len(p.report.Waiting) > 0 {
			p.stale = true
			return nil
		}
		p.stale = stale
	}
	return nil
}

// pending counts what was announced and could not be removed yet.
func (p *pruner) pending(ctx context.Context) error {
	lists, err := p.r.PruneLists(ctx)
	if err != nil {
		return err
	}
	for _, l := range lists {
		for _, id := range l.Packs {
			info, err := p.r.Backend.Stat(ctx, layout.PackName(pack.ID(id)))
			if errors.Is(err, backend.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			p.report.PendingPacks++
			p.report.PendingBytes += info.Size
		}
	}
	return nil
}
