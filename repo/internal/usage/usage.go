// Package usage finds out what the snapshots and unfinished backups of a repository
// need. It changes nothing.
package usage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// Usage says what the snapshots and the unfinished runs need, in terms of the
// index as it was loaded.
type Usage struct {
	Store      *store.Store
	Snapshots  []*record.Snapshot
	records    []string // names of the records that were counted, sorted
	Used       *index.ChunkSet
	bases      *index.ChunkSet  // what is needed only to decode something else, too
	Duplicates bool             // some chunks are in several packs, of which one copy is marked
	plan       Plan             // of blocks to be stored anew, or nil
	Moved      map[pack.ID]bool // packs of which everything in use is in others, too
}

// Plan is a plan to store what is in use of some blocks in other blocks.
type Plan interface {
	// replaces reports whether a block is one of those to be replaced.
	Replaces(ref index.BlockRef) bool
	// dictionaries calls fn for the dictionary of every block that is to come.
	Dictionaries(fn func(ids []chunk.ID))
	// location returns where a chunk will be, if it is in a block that is to come.
	Location(id chunk.ID) (index.Location, bool)
}

// Apply makes the usage that of the repository as it will be when a plan is
// carried out. What only replaced blocks need counts as unused then.
func (u *Usage) Apply(plan Plan) {
	u.plan = plan
	u.findBases()
}

// Find looks at every snapshot and unfinished run, and loads the index for
// that. Snapshots in without are left out. It fails if a snapshot cannot be read
// to its end: what it needs is not known then.
func Find(ctx context.Context, r *store.Store, without ...layout.FileID) (*Usage, error) {
	u := &Usage{Store: r, Moved: map[pack.ID]bool{}}
	all, runs, err := u.read(ctx)
	if err != nil {
		return nil, err
	}
	all.Current = slices.DeleteFunc(all.Current, func(s *record.Snapshot) bool { return slices.ContainsFunc(without, s.Has) })
	all.Superseded = slices.DeleteFunc(all.Superseded, func(s *record.Snapshot) bool { return slices.ContainsFunc(without, s.Has) })
	// The index comes after: it has then what these need.
	if err := r.LoadIndex(ctx); err != nil {
		return nil, err
	}
	u.Snapshots, u.Duplicates = all.Current, r.Index.Duplicates()
	u.Used = r.Index.NewChunkSet()
	for _, s := range slices.Concat(all.Current, all.Superseded) {
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
			if err := u.tree(ctx, root, -1); err != nil && !errors.Is(err, store.ErrDamaged) {
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
func (u *Usage) read(ctx context.Context) (all record.Snapshots, runs []*record.Unfinished, err error) {
	for range MaxReads {
		if u.records, err = records(ctx, u.Store); err != nil {
			return all, nil, err
		}
		if all, err = record.ReadAll(ctx, u.Store); err != nil {
			return all, nil, err
		}
		if runs, _, err = record.AllUnfinished(ctx, u.Store); err != nil {
			return all, nil, err
		}
		after, err := records(ctx, u.Store)
		if err != nil {
			return all, nil, err
		}
		if !slices.Equal(after, u.records) {
			continue
		}
		if len(all.Damaged) > 0 {
			return all, nil, all.Damaged[0]
		}
		return all, runs, nil
	}
	return all, nil, errors.New("snapshots change faster than they can be read; try again")
}

// MaxReads bounds how often records are read anew because others change them.
const MaxReads = 20

// records lists what makes content needed.
func records(ctx context.Context, r *store.Store) ([]string, error) {
	var names []string
	for _, dir := range []string{layout.SnapshotsDir, layout.RunsDir} {
		err := r.Backend.List(ctx, dir, func(f backend.Info) error {
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

// UpToDate reports whether there is no record now that was not counted.
func (u *Usage) UpToDate(ctx context.Context) (bool, error) {
	now, err := records(ctx, u.Store)
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
func (u *Usage) mark(id chunk.ID) (bool, error) {
	_, added, ok := u.Used.Add(id)
	if !ok {
		return false, &store.DamageError{File: "", Err: fmt.Errorf("chunk %s is in no index", id.Short())}
	}
	return added, nil
}

// tree marks a node and everything below it, once.
func (u *Usage) tree(ctx context.Context, id chunk.ID, above int) error {
	added, err := u.mark(id)
	if err != nil || !added {
		return err
	}
	n, err := tree.LoadBelow(ctx, u.Store.Chunk, id, above)
	if err != nil {
		return store.TreeDamage(err)
	}
	mark := func(id chunk.ID) error { _, err := u.mark(id); return err }
	for i := range n.Entries {
		if err := n.Entries[i].Content.All(ctx, u.Store.Chunk, mark, mark); err != nil {
			return store.TreeDamage(err)
		}
	}
	for _, child := range n.Children {
		if err := u.tree(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// Replaced reports whether what is in use of a block is to be stored anew.
func (u *Usage) Replaced(ref index.BlockRef) bool { return u.plan != nil && u.plan.Replaces(ref) }

// InPlan reports whether the plan has a new block for a chunk.
func (u *Usage) InPlan(id chunk.ID) bool {
	if u.plan == nil {
		return false
	}
	_, ok := u.plan.Location(id)
	return ok
}

// findBases marks the chunks that have to be decoded to decode the used ones, as
// these are to be.
func (u *Usage) findBases() {
	u.bases = u.Store.Index.NewChunkSet()
	var open []index.BlockRef
	need := func(ids []chunk.ID) {
		for _, id := range ids {
			if loc, added, ok := u.bases.Add(id); ok && added {
				open = append(open, loc.Block)
			}
		}
	}
	if u.plan != nil {
		u.plan.Dictionaries(need)
	}
	for _, p := range u.Store.Index.Packs() {
		for _, ref := range p.Blocks {
			if u.Used.Any(ref) {
				open = append(open, ref)
			}
		}
	}
	done := map[index.BlockRef]bool{}
	for len(open) > 0 {
		ref := open[len(open)-1]
		open = open[:len(open)-1]
		if done[ref] || u.Replaced(ref) {
			continue
		}
		done[ref] = true
		_, dict := u.Store.Index.Dependencies(ref)
		need(dict)
	}
}

// Live reports whether anything in a block has to stay.
func (u *Usage) Live(ref index.BlockRef) bool { return u.Used.Any(ref) || u.bases.Any(ref) }

// Keep reports which chunks of a block have to stay, and the length of these
// and of all.
func (u *Usage) Keep(ref index.BlockRef) (keep []bool, length, of int64) {
	keep, length, of = u.Used.Block(ref)
	bases, _, _ := u.bases.Block(ref)
	_, b := u.Store.Index.Block(ref)
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
func (u *Usage) lost(ctx context.Context, l *record.Lost) error {
	if l == nil {
		return nil
	}
	load := func(ctx context.Context, id chunk.ID) ([]byte, error) {
		u.Used.Add(id)
		return u.Store.Chunk(ctx, id)
	}
	mark := func(id chunk.ID) error { u.Used.Add(id); return nil }
	entries, _, err := l.Entries(ctx, load)
	if err != nil {
		return err
	}
	for i := range entries {
		err := entries[i].Content.All(ctx, u.Store.Chunk, mark, mark)
		if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, tree.ErrDamaged) {
			return err
		}
	}
	return nil
}

// CheckComplete returns nil if everything is there that the snapshots and unfinished
// runs need: every chunk is in the index, and every pack that the index lists is
// there. It reads the trees of all snapshots, no content, and loads the index.
func CheckComplete(ctx context.Context, r *store.Store) error {
	if _, err := Find(ctx, r); err != nil {
		return err
	}
	return errors.Join(r.IndexDamage()...)
}
