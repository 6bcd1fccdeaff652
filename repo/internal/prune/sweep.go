package prune

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/usage"
	"github.com/snap-backup/snap/repo/parity"
)

// sweep removes the packs of the prune lists that every running process has read,
// except those that a snapshot needs after all. docs/decisions says why that is
// safe. u is the usage as it was looked up last. If that is outdated, sweep looks
// anew and the outcome is again.
func (p *pruner) sweep(ctx context.Context, u *usage.Usage) (outcome, error) {
	lists, err := p.r.PruneLists(ctx)
	if err != nil || len(lists) == 0 {
		return p.outcome(false), err
	}
	ready, err := p.ready(ctx, lists)
	if err != nil || len(ready) == 0 {
		return p.outcome(false), err
	}
	// If this process has slept until another prune took it for dead, that one
	// may have removed what has just been copied. Whoever begins from here on
	// reads these lists, and does not take what is on them for a copy.
	if err := p.r.CheckLock(ctx); err != nil {
		return finished, fmt.Errorf("prune: %w", err)
	}
	// From here on nobody who could rely on these packs can store a snapshot
	// any more, so what is looked up now stays true.
	looked := u
	if u, err = p.upToDate(ctx, u); err != nil || u == nil {
		return p.outcome(u != looked), err
	}
	going := map[pack.ID]bool{}
	for _, l := range ready {
		for _, id := range l.Packs {
			going[pack.ID(id)] = true
		}
	}
	for _, known := range p.r.Index.Packs() {
		if going[known.ID] && !u.Moved[known.ID] && slices.ContainsFunc(known.Blocks, u.Live) {
			delete(going, known.ID)
		}
	}
	return p.outcome(u != looked), p.removeListed(ctx, ready, going)
}

// upToDate returns a usage that counts every record that is there now: u, or one
// that it looks up. It returns nil if records change faster than they can be read;
// the next prune goes on then.
func (p *pruner) upToDate(ctx context.Context, u *usage.Usage) (*usage.Usage, error) {
	for range usage.MaxReads {
		current, err := u.UpToDate(ctx)
		if err != nil || current {
			return u, err
		}
		if u, err = usage.Find(ctx, p.r); err != nil {
			return nil, err
		}
	}
	if current, err := u.UpToDate(ctx); err != nil || !current {
		return nil, err
	}
	return u, nil
}

// removeListed removes packs, and then the prune lists that name them.
func (p *pruner) removeListed(ctx context.Context, lists []store.PruneList, going map[pack.ID]bool) error {
	if err := indexfile.Unlist(ctx, p.r, going); err != nil {
		return err
	}
	if err := p.guard(ctx, going); err != nil {
		return err
	}
	for _, id := range slices.SortedFunc(maps.Keys(going), func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) }) {
		if err := p.remove(ctx, id); err != nil {
			return err
		}
	}
	for _, l := range lists {
		if err := p.r.Backend.Delete(ctx, layout.PrunesDir+l.ID.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove a list of packs to remove: %w", err)
		}
	}
	return nil
}

// ready returns the lists that every living process has read, after the locks
// of the dead were removed. It notes who has not read the others.
func (p *pruner) ready(ctx context.Context, lists []store.PruneList) ([]store.PruneList, error) {
	if _, err := lock.Remove(ctx, p.r, lock.LeftBehind); err != nil {
		return nil, err
	}
	locks, err := lock.List(ctx, p.r)
	if err != nil {
		return nil, err
	}
	var ready []store.PruneList
	p.report.Waiting = []lock.Info{}
	for _, l := range lists {
		waiting := lock.NotRead(p.r, locks, l.ID)
		for _, o := range waiting {
			if !slices.ContainsFunc(p.report.Waiting, func(w lock.Info) bool { return w.ID == o.ID }) {
				p.report.Waiting = append(p.report.Waiting, o)
			}
		}
		if len(waiting) == 0 {
			ready = append(ready, l)
		}
	}
	return ready, nil
}

func (p *pruner) remove(ctx context.Context, id pack.ID) error {
	info, err := p.r.Backend.Stat(ctx, layout.PackName(id))
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = p.r.Backend.Delete(ctx, layout.PackName(id))
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove a pack: %w", err)
	}
	p.report.RemovedPacks++
	p.report.FreedBytes += info.Size
	return nil
}

// guard makes parity without packs that are about to be removed. A full disk is
// no reason to keep them. A damaged file is: what is going may be what heals it.
func (p *pruner) guard(ctx context.Context, going map[pack.ID]bool) error {
	without := map[string]bool{}
	for id := range going {
		without[layout.PackName(id)] = true
	}
	rep, err := parity.Refresh(ctx, p.r.Backend, parity.RefreshOptions{Without: func(name string) bool { return without[name] }})
	if rep != nil && len(rep.Damaged) > 0 {
		return &store.DamageError{File: rep.Damaged[0], Err: errors.New("no pack was removed, since parity may need it to heal this file; heal first with `snap repair`, then prune again")}
	}
	if backend.IsNoSpace(err) {
		return nil
	}
	return err
}

// removeDead removes what nothing needs, and what earlier runs have announced.
func (p *pruner) removeDead(ctx context.Context, plan *prunePlan) (outcome, error) {
	if len(plan.dead) > 0 {
		if _, err := p.r.PutPruneList(ctx, plan.dead); err != nil {
			return finished, err
		}
	}
	p.opts.Progress("removing packs", 0, 0)
	return p.sweep(ctx, plan.u)
}
