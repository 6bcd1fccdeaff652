package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// usage says what the snapshots and the unfinished runs need, in terms of the
// index as it was loaded.
type usage struct {
	r       *Repo
	list    []*Snapshot
	records []string // names of the records that were counted, sorted
	used    *index.ChunkSet
	bases   *index.ChunkSet  // what is needed only to decode something else, too
	twice   bool             // some chunks lie in several packs, of which one copy is marked
	plan    replacement      // of blocks to be stored anew, or nil
	moved   map[pack.ID]bool // packs of which everything in use is in others, too
}

// replacement is a plan to store what is in use of some blocks in other blocks.
type replacement interface {
	// replaces reports whether a block is one of those to be replaced.
	replaces(ref index.BlockRef) bool
	// dictionaries calls fn for the dictionary of every block that is to come.
	dictionaries(fn func(ids []chunk.ID))
	// location returns where a chunk will be, if it is in a block that is to come.
	location(id chunk.ID) (index.Location, bool)
}

// apply makes the usage that of the repository as it will be when a plan is
// carried out. What only replaced blocks need counts as unused then.
func (u *usage) apply(plan replacement) {
	u.plan = plan
	u.findBases()
}

// usage looks at every snapshot and unfinished run, and loads the index for
// that. Snapshots in without are left out. It fails if a snapshot cannot be read
// to its end: what it needs is not known then.
func (r *Repo) usage(ctx context.Context, without ...FileID) (*usage, error) {
	u := &usage{r: r, moved: map[pack.ID]bool{}}
	all, runs, err := u.read(ctx)
	if err != nil {
		return nil, err
	}
	all.current = slices.DeleteFunc(all.current, func(s *Snapshot) bool { return slices.ContainsFunc(without, s.Has) })
	all.superseded = slices.DeleteFunc(all.superseded, func(s *Snapshot) bool { return slices.ContainsFunc(without, s.Has) })
	// The index comes after: it has then what these need.
	if err := r.LoadIndex(ctx); err != nil {
		return nil, err
	}
	u.list, u.twice = all.current, r.index.Duplicates()
	u.used = r.index.NewChunkSet()
	for _, s := range slices.Concat(all.current, all.superseded) {
		if err := u.tree(ctx, s.Root, -1); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
		}
		if err := u.lost(ctx, s.Lost); err != nil {
			return nil, fmt.Errorf("what snapshot %s has lost: %w", s.ID.Short(), err)
		}
	}
	for _, run := range runs {
		for _, root := range run.Parts {
			// A damaged one is of no use: its device sends the files again.
			if err := u.tree(ctx, root, -1); err != nil && !errors.Is(err, ErrDamaged) {
				return nil, fmt.Errorf("unfinished backup of %s: %w", run.UDID, err)
			}
		}
	}
	u.findBases()
	return u, nil
}

// read reads all records. A record that is replaced by another one meanwhile, as
// when a snapshot gets a tag, could be missed in both forms, so it reads until
// nothing has changed.
func (u *usage) read(ctx context.Context) (all snapshotRecords, runs []*Unfinished, err error) {
	for range maxReads {
		if u.records, err = u.r.records(ctx); err != nil {
			return all, nil, err
		}
		if all, err = u.r.readRecords(ctx); err != nil {
			return all, nil, err
		}
		if runs, _, err = u.r.allUnfinished(ctx); err != nil {
			return all, nil, err
		}
		after, err := u.r.records(ctx)
		if err != nil {
			return all, nil, err
		}
		if !slices.Equal(after, u.records) {
			continue
		}
		if len(all.damaged) > 0 {
			return all, nil, all.damaged[0]
		}
		return all, runs, nil
	}
	return all, nil, errors.New("snapshots change faster than they can be read; try again")
}

// maxReads bounds how often records are read anew because others change them.
const maxReads = 20

// records lists what makes content needed.
func (r *Repo) records(ctx context.Context) ([]string, error) {
	var names []string
	for _, dir := range []string{snapshotsDir, runsDir} {
		err := r.be.List(ctx, dir, func(f backend.Info) error {
			names = append(names, f.Name)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
	}
	slices.Sort(names)
	return names, nil
}

// current reports whether there is no record now that was not counted.
func (u *usage) current(ctx context.Context) (bool, error) {
	now, err := u.r.records(ctx)
	if err != nil {
		return false, err
	}
	for _, name := range now {
		if _, counted := slices.BinarySearch(u.records, name); !counted {
			return false, nil
		}
	}
	return true, nil
}

// mark notes that a chunk is needed. It reports whether that is news.
func (u *usage) mark(id chunk.ID) (bool, error) {
	_, added, ok := u.used.Add(id)
	if !ok {
		return false, &DamageError{"", fmt.Errorf("chunk %s is in no index", id.Short())}
	}
	return added, nil
}

// tree marks a node and everything below it, once.
func (u *usage) tree(ctx context.Context, id chunk.ID, above int) error {
	added, err := u.mark(id)
	if err != nil || !added {
		return err
	}
	n, err := tree.LoadBelow(ctx, u.r.Chunk, id, above)
	if err != nil {
		return treeDamage(err)
	}
	mark := func(id chunk.ID) error { _, err := u.mark(id); return err }
	for i := range n.Entries {
		if err := n.Entries[i].Content.All(ctx, u.r.Chunk, mark, mark); err != nil {
			return treeDamage(err)
		}
	}
	for _, child := range n.Children {
		if err := u.tree(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// isRebased reports whether what is in use of a block is to be stored anew.
func (u *usage) isRebased(ref index.BlockRef) bool { return u.plan != nil && u.plan.replaces(ref) }

// inPlan reports whether the plan has a new block for a chunk.
func (u *usage) inPlan(id chunk.ID) bool {
	if u.plan == nil {
		return false
	}
	_, ok := u.plan.location(id)
	return ok
}

// findBases marks the chunks that have to be decoded to decode the used ones, as
// these are to be.
func (u *usage) findBases() {
	u.bases = u.r.index.NewChunkSet()
	var open []index.BlockRef
	need := func(ids []chunk.ID) {
		for _, id := range ids {
			if loc, added, ok := u.bases.Add(id); ok && added {
				open = append(open, loc.Block)
			}
		}
	}
	if u.plan != nil {
		u.plan.dictionaries(need)
	}
	for _, p := range u.r.index.Packs() {
		for _, ref := range p.Blocks {
			if u.used.Any(ref) {
				open = append(open, ref)
			}
		}
	}
	done := map[index.BlockRef]bool{}
	for len(open) > 0 {
		ref := open[len(open)-1]
		open = open[:len(open)-1]
		if done[ref] || u.isRebased(ref) {
			continue
		}
		done[ref] = true
		_, dict := u.r.index.Dependencies(ref)
		need(dict)
	}
}

// live reports whether anything in a block has to stay.
func (u *usage) live(ref index.BlockRef) bool { return u.used.Any(ref) || u.bases.Any(ref) }

// keep reports which chunks of a block have to stay, and the length of these
// and of all.
func (u *usage) keep(ref index.BlockRef) (keep []bool, length, of int64) {
	keep, length, of = u.used.Block(ref)
	bases, _, _ := u.bases.Block(ref)
	_, b := u.r.index.Block(ref)
	for i := range keep {
		if bases[i] && !keep[i] {
			keep[i] = true
			length += int64(b.Chunks[i].Length)
		}
	}
	return keep, length, of
}

// lost marks what is left of lost files, so that it is there should the rest
// come back. What is missing is no error here.
func (u *usage) lost(ctx context.Context, l *Lost) error {
	if l == nil {
		return nil
	}
	load := func(ctx context.Context, id chunk.ID) ([]byte, error) {
		u.used.Add(id)
		return u.r.Chunk(ctx, id)
	}
	mark := func(id chunk.ID) error { u.used.Add(id); return nil }
	entries, _, err := l.entries(ctx, load)
	if err != nil {
		return err
	}
	for i := range entries {
		err := entries[i].Content.All(ctx, u.r.Chunk, mark, mark)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, tree.ErrDamaged) {
			return err
		}
	}
	return nil
}

// CheckComplete returns nil if everything is there that the snapshots and unfinished
// runs need: every chunk is in the index, and every pack that the index lists is
// there. It reads the trees of all snapshots, no content, and loads the index.
func (r *Repo) CheckComplete(ctx context.Context) error {
	if _, err := r.usage(ctx); err != nil {
		return err
	}
	return errors.Join(r.IndexDamage()...)
}
