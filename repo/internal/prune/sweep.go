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

// sweep removes the packs on each prune list that every running process has read,
// except packs that a snapshot needs after all. docs/decisions says why that is safe.
// If u does not count all records any more, sweep finds the usage again, and asks for
// another round.
func (p *pruner) sweep(ctx context.Context, u *usage.Usage) (outcome, error) {
	lists, err := p.r.PruneLists(ctx)
	if err != nil || len(lists) == 0 {
		return p.outcome(false), err
	}
	ready, err := p.readyLists(ctx, lists)
	if err != nil || len(ready) == 0 {
		return p.outcome(false), err
	}
	// If this process slept so long that another prune took it for dead, that prune
	// may have removed packs that this one just wrote. Processes that begin from
	// now on read these lists, so they rely on none of the listed packs.
	if err := p.r.CheckLock(ctx); err != nil {
		return finished, fmt.Errorf("prune: %w", err)
	}
	// From now on no process that could rely on these packs can store a snapshot, so
	// a usage found now stays valid.
	before := u
	if u, err = p.upToDate(ctx, u); err != nil || u == nil {
		return p.outcome(u != before), err
	}
	remove := map[pack.ID]bool{}
	for _, l := range ready {
		for _, id := range l.Packs {
			remove[pack.ID(id)] = true
		}
	}
	for _, known := range p.r.Index.Packs() {
		if remove[known.ID] && !u.Moved[known.ID] && slices.ContainsFunc(known.Blocks, u.InUse) {
			delete(remove, known.ID)
		}
	}
	if err := p.confirm(ctx, u, remove); err != nil {
		return finished, err
	}
	return p.outcome(u != before), p.removeListed(ctx, ready, remove)
}

// upToDate returns a usage that counts every record that exists now: u, or a new
// one. It returns nil if records change faster than they can be read; then the next
// prune continues.
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
func (p *pruner) removeListed(ctx context.Context, lists []store.PruneList, packs map[pack.ID]bool) error {
	if err := indexfile.Unlist(ctx, p.r, packs); err != nil {
		return err
	}
	if err := p.refreshParity(ctx, packs); err != nil {
		return err
	}
	for _, id := range slices.SortedFunc(maps.Keys(packs), func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) }) {
		if err := p.remove(ctx, id); err != nil {
			return err
		}
	}
	for _, l := range lists {
		if err := p.r.Backend.Delete(ctx, layout.PrunesDir+l.ID.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove a prune list: %w", err)
		}
	}
	return nil
}

// readyLists removes stale locks and returns the lists that every running process has
// read. It reports the locks of processes that have not read the others.
func (p *pruner) readyLists(ctx context.Context, lists []store.PruneList) ([]store.PruneList, error) {
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
	if err == nil || backend.Unreadable(ctx, p.r.Backend, err) {
		err = p.r.Backend.Delete(ctx, layout.PackName(id))
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove a pack: %w", err)
	}
	p.report.RemovedPacks++
	p.report.FreedBytes += info.Size
	return nil
}

// refreshParity makes parity without packs that are about to be removed. It ignores
// a full disk. It fails if a file is damaged, since healing that file may need
// these packs.
func (p *pruner) refreshParity(ctx context.Context, packs map[pack.ID]bool) error {
	without := map[string]bool{}
	for id := range packs {
		without[layout.PackName(id)] = true
	}
	rep, err := parity.Refresh(ctx, p.r.Backend, parity.RefreshOptions{Without: func(name string) bool { return without[name] }})
	if rep != nil && len(rep.Damaged) > 0 {
		return &store.DamageError{File: rep.Damaged[0], Err: errors.New("no pack was removed, since parity may need them to heal this file; heal it with `snap repair`, then prune again")}
	}
	if backend.IsNoSpace(err) {
		return nil
	}
	return err
}

// removeDead retires the packs that nothing needs, then removes packs on prune
// lists.
func (p *pruner) removeDead(ctx context.Context, plan *prunePlan) (outcome, error) {
	if len(plan.dead) > 0 {
		if _, err := p.r.PutPruneList(ctx, plan.dead); err != nil {
			return finished, err
		}
	}
	p.opts.Progress("removing packs", 0, 0)
	return p.sweep(ctx, plan.u)
}
