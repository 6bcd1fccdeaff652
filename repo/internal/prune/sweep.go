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

// sweep removes the packs of the lists that every process at work has read, but
// for those that a snapshot turned out to need. See docs/design for why that is
// safe. u is what is needed, if that has just been looked up, else nil.
func (p *pruner) sweep(ctx context.Context, u *usage.Usage) error {
	lists, err := p.r.PruneLists(ctx)
	if err != nil || len(lists) == 0 {
		return err
	}
	ready, err := p.ready(ctx, lists)
	if err != nil || len(ready) == 0 {
		return err
	}
	// If this process has slept until another prune took it for dead, that one
	// may have removed what has just been copied. Whoever begins from here on
	// reads these lists, and does not take what is on them for a copy.
	if err := p.r.CheckLock(ctx); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	// From here on nobody who could rely on these packs can store a snapshot
	// any more, so what is looked up now stays true.
	for range usage.MaxReads {
		if u != nil {
			current, err := u.UpToDate(ctx)
			if err != nil {
				return err
			}
			if current {
				break
			}
		}
		if u, err = usage.Find(ctx, p.r); err != nil {
			return err
		}
		p.stale = true
	}
	if current, err := u.UpToDate(ctx); err != nil || !current {
		return err // the next prune goes on
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
	for _, l := range ready {
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
