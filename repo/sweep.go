package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
)

// sweep removes the packs of the lists that every process at work has read, but
// for those that a snapshot turned out to need. See docs/design for why that is
// safe. u is what is needed, if that has just been looked up, else nil.
func (p *pruner) sweep(ctx context.Context, u *usage) error {
	lists, err := p.r.pruneLists(ctx)
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
	if err := p.r.lock.held(ctx); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	// From here on nobody who could rely on these packs can store a snapshot
	// any more, so what is looked up now stays true.
	for range maxReads {
		if u != nil {
			current, err := u.current(ctx)
			if err != nil {
				return err
			}
			if current {
				break
			}
		}
		if u, err = p.r.usage(ctx); err != nil {
			return err
		}
		p.stale = true
	}
	if current, err := u.current(ctx); err != nil || !current {
		return err // the next prune goes on
	}
	going := map[pack.ID]bool{}
	for _, l := range ready {
		for _, id := range l.Packs {
			going[pack.ID(id)] = true
		}
	}
	for _, known := range p.r.index.Packs() {
		if going[known.ID] && !u.moved[known.ID] && slices.ContainsFunc(known.Blocks, u.live) {
			delete(going, known.ID)
		}
	}
	if err := p.unlist(ctx, going); err != nil {
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
		if err := p.r.be.Delete(ctx, prunesDir+l.ID.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove a list of packs to remove: %w", err)
		}
	}
	return nil
}

// ready returns the lists that every living process has read, after the locks
// of the dead were removed. It notes who has not read the others.
func (p *pruner) ready(ctx context.Context, lists []pruneList) ([]pruneList, error) {
	if _, err := p.r.RemoveLocks(ctx, LeftBehind); err != nil {
		return nil, err
	}
	locks, err := p.r.Locks(ctx)
	if err != nil {
		return nil, err
	}
	var ready []pruneList
	p.report.Waiting = []LockInfo{}
	for _, l := range lists {
		wait := false
		for _, o := range locks {
			if o.session == p.r.lock.session() || o.Kind == LockPrune || slices.Contains(o.seen, l.ID) {
				continue
			}
			wait = true
			if !slices.ContainsFunc(p.report.Waiting, func(w LockInfo) bool { return w.ID == o.ID }) {
				p.report.Waiting = append(p.report.Waiting, o)
			}
		}
		if !wait {
			ready = append(ready, l)
		}
	}
	return ready, nil
}

func (p *pruner) remove(ctx context.Context, id pack.ID) error {
	info, err := p.r.be.Stat(ctx, packName(id))
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = p.r.be.Delete(ctx, packName(id))
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove a pack: %w", err)
	}
	p.report.RemovedPacks++
	p.report.FreedBytes += info.Size
	return nil
}

const (
	// smallIndex is the size below which index files are worth putting
	// together, in bytes, and manySmall how many there have to be.
	smallIndex = 1 << 20
	manySmall  = 16
)

// unlist writes new index files for the old ones that list packs which are
// going or gone, and then removes the old ones. Where there are many small
// files it puts them together.
func (p *pruner) unlist(ctx context.Context, going map[pack.ID]bool) error {
	type entry struct {
		id   pack.ID
		size int64
		h    pack.Header
	}
	var there map[pack.ID]bool
	var small, old, fresh []string
	file, stays := &index.File{}, map[pack.ID]bool{}
	flush := func() error {
		if file.Len() == 0 {
			return nil
		}
		b, err := file.Seal(p.r.indexes)
		if err != nil {
			return err
		}
		id, err := p.r.putNamed(ctx, indexDir, b)
		if err != nil {
			return fmt.Errorf("store an index file: %w", err)
		}
		fresh = append(fresh, indexDir+id.String())
		file = &index.File{}
		return nil
	}
	take := func(name string, all bool) error {
		b, err := p.r.readNamed(ctx, name, index.MaxFileSize)
		if err != nil {
			return err
		}
		var entries []entry
		changed := all
		err = index.OpenFile(b, p.r.indexes, func(id pack.ID, size int64, h pack.Header) {
			if going[id] || !there[id] {
				changed = true
				return
			}
			entries = append(entries, entry{id, size, h})
		})
		if err != nil {
			return &DamageError{name, err}
		}
		if !changed {
			if len(b) < smallIndex {
				small = append(small, name)
			}
			return nil
		}
		old = append(old, name)
		for i := range entries {
			e := &entries[i]
			if stays[e.id] {
				continue
			}
			stays[e.id] = true
			file.Add(e.id, e.size, &e.h)
			if file.Size() >= maxIndexSize {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	var names []string
	if err := p.r.be.List(ctx, indexDir, func(f backend.Info) error {
		if _, err := fileID(f.Name); err == nil {
			names = append(names, f.Name)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("list the index: %w", err)
	}
	// After the index: a pack is there before a file lists it, so what is not
	// there now has been removed.
	var err error
	there, err = p.r.listPacks(ctx)
	if err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	for _, name := range names {
		if err := take(name, false); err != nil {
			return err
		}
	}
	if len(small) >= manySmall {
		for _, name := range small {
			if err := take(name, true); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if err := p.r.lock.held(ctx); err != nil {
		// They may list packs that another prune has removed. What else they
		// list is in the old ones, or in those that the other one has made.
		for _, name := range fresh {
			if !slices.Contains(names, name) {
				_ = p.r.be.Delete(context.WithoutCancel(ctx), name)
			}
		}
		return fmt.Errorf("prune: %w", err)
	}
	for _, name := range old {
		if err := p.r.be.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove an index file: %w", err)
		}
	}
	return nil
}
