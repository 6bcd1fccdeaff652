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
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/tree"
)

// Usage says which chunks of the loaded index are needed by snapshots and
// unfinished backups.
type Usage struct {
	Store      *store.Store
	Snapshots  []*record.Snapshot
	records    []string // names of the records that were counted, sorted
	Used       *index.ChunkSet
	bases      *index.ChunkSet  // needed as bases; some of them are in Used, too
	Duplicates bool             // some chunks are in several packs; only one copy is marked
	plan       Plan             // of blocks to store again, or nil
	Moved      map[pack.ID]bool // packs whose chunks in use are all in other packs, too
}

// Plan is a plan to replace some blocks: their chunks in use are copied to planned
// blocks.
type Plan interface {
	// Replaces reports whether the plan replaces a block.
	Replaces(ref index.BlockRef) bool
	// Dictionaries calls fn for the dictionary of every planned block.
	Dictionaries(fn func(ids []chunk.ID))
	// Location returns where a chunk will be, if it is in a planned block.
	Location(id chunk.ID) (index.Location, bool)
}

// Apply changes the usage as if a plan had been carried out. From then on, a chunk
// counts as unused if only blocks that the plan replaces need it.
func (u *Usage) Apply(plan Plan) {
	u.plan = plan
	u.findBases()
}

// Find loads the index and reads the trees of all snapshots and unfinished backups,
// except the snapshots in without. It fails if the tree of a snapshot cannot be
// read completely, since the snapshot may need chunks that are then unknown. So it fails
// if an index file is missing.
func Find(ctx context.Context, r *store.Store, without ...layout.FileID) (*Usage, error) {
	return find(ctx, r, r.LoadListed, without)
}

// FindUnlisted is like Find, but also reads the packs that no index file lists.
func FindUnlisted(ctx context.Context, r *store.Store) (*Usage, error) {
	return find(ctx, r, r.LoadIndex, nil)
}

func find(ctx context.Context, r *store.Store, load func(context.Context) error, without []layout.FileID) (*Usage, error) {
	u := &Usage{Store: r, Moved: map[pack.ID]bool{}}
	all, runs, err := u.readRecords(ctx)
	if err != nil {
		return nil, err
	}
	all.Current = slices.DeleteFunc(all.Current, func(s *record.Snapshot) bool { return slices.ContainsFunc(without, s.Has) })
	all.Superseded = slices.DeleteFunc(all.Superseded, func(s *record.Snapshot) bool { return slices.ContainsFunc(without, s.Has) })
	// Load the index after reading the records, so that it has the chunks that the
	// records need.
	if err := load(ctx); err != nil {
		return nil, err
	}
	if len(r.Index.Packs()) == 0 {
		if err := r.MustHaveFolder(ctx, layout.PacksDir); err != nil {
			return nil, err
		}
	}
	u.Snapshots, u.Duplicates = all.Current, r.Index.Duplicates()
	u.Used = r.Index.NewChunkSet()
	for _, s := range slices.Concat(all.Current, all.Superseded) {
		if err := u.markTree(ctx, s.Root, -1); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
		}
		if err := u.markLost(ctx, s.Lost); err != nil {
			return nil, fmt.Errorf("lost files of snapshot %s: %w", s.ID.Short(), err)
		}
	}
	for _, run := range runs {
		for _, root := range run.Parts {
			if err := u.markRemaining(ctx, root, -1); err != nil {
				return nil, fmt.Errorf("unfinished backup of %s: %w", run.UDID, err)
			}
		}
	}
	u.findBases()
	return u, nil
}

// readRecords reads all records. If another process replaces a record at the same
// time, both the old and the new one could be missed. So it reads again until nothing
// changes.
func (u *Usage) readRecords(ctx context.Context) (all record.Snapshots, runs []*record.Unfinished, err error) {
	for range MaxReads {
		if u.records, err = recordNames(ctx, u.Store); err != nil {
			return all, nil, err
		}
		if all, err = record.ReadAll(ctx, u.Store); err != nil {
			return all, nil, err
		}
		var damaged []error
		if runs, damaged, err = record.AllUnfinished(ctx, u.Store); err != nil {
			return all, nil, err
		}
		after, err := recordNames(ctx, u.Store)
		if err != nil {
			return all, nil, err
		}
		if !slices.Equal(after, u.records) {
			continue
		}
		if len(all.Damaged) > 0 {
			return all, nil, all.Damaged[0]
		}
		// A snapshot whose record a repair was about to replace needs its content.
		if waiting, err := replace.Waiting(ctx, u.Store.Backend, layout.SnapshotsDir); err != nil {
			return all, nil, err
		} else if len(waiting) > 0 {
			return all, nil, &store.DamageError{File: replace.Dir + waiting[0], Err: errors.New("a repair was interrupted before it put this file in place; `snap repair index` does that")}
		}
		if len(all.LedgerDamage) > 0 { // it may know of lost records
			err := all.LedgerDamage[0]
			if !errors.Is(err, store.ErrDamaged) {
				err = &store.DamageError{File: layout.LedgerDir, Err: err} // a newer program has written it
			}
			return all, nil, err
		}
		// A record with wrong bytes is lost, and its device sends the files again. One
		// that cannot be read here may be read, and continued, elsewhere.
		for _, err := range damaged {
			if errors.Is(err, store.ErrUnreadable) {
				return all, nil, fmt.Errorf("%w; if nobody else can read it, `snap repair snapshots` removes it, and that backup begins anew", err)
			}
		}
		return all, runs, nil
	}
	return all, nil, errors.New("snapshots change faster than they can be read; try again")
}

// MaxReads bounds how often records are read again because other processes change them.
const MaxReads = 20

// recordNames returns the names of the records of snapshots and unfinished backups.
func recordNames(ctx context.Context, r *store.Store) ([]string, error) {
	var names []string
	for _, dir := range []string{layout.SnapshotsDir, layout.RunsDir} {
		in, err := r.NamesIn(ctx, dir)
		if err != nil {
			return nil, err
		}
		names = append(names, in...)
	}
	slices.Sort(names)
	return names, nil
}

// UpToDate reports whether all present records were counted.
func (u *Usage) UpToDate(ctx context.Context) (bool, error) {
	now, err := recordNames(ctx, u.Store)
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

// mark marks a chunk as used. It reports whether the chunk was not marked before.
func (u *Usage) mark(id chunk.ID) (bool, error) {
	_, added, ok := u.Used.Add(id)
	if !ok {
		return false, u.Store.UnknownChunk(id)
	}
	return added, nil
}

// markList marks a list as used. A list that was marked before is skipped.
func (u *Usage) markList(id chunk.ID) error {
	added, err := u.mark(id)
	if err == nil && !added {
		return tree.ErrSkipList
	}
	return err
}

// markTree marks a node and everything below it as used, unless the node was marked
// before.
func (u *Usage) markTree(ctx context.Context, id chunk.ID, above int) error {
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
		if err := n.Entries[i].Content.All(ctx, u.Store.Chunk, u.markList, mark); err != nil {
			return store.TreeDamage(err)
		}
	}
	for _, child := range n.Children {
		if err := u.markTree(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// Replaced reports whether the plan replaces a block.
func (u *Usage) Replaced(ref index.BlockRef) bool { return u.plan != nil && u.plan.Replaces(ref) }

// InPlan reports whether a chunk is in a planned block.
func (u *Usage) InPlan(id chunk.ID) bool {
	if u.plan == nil {
		return false
	}
	_, ok := u.plan.Location(id)
	return ok
}

// findBases finds the direct and indirect bases of used chunks, as if the plan had
// been carried out.
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

// InUse reports whether a block has chunks in use.
func (u *Usage) InUse(ref index.BlockRef) bool { return u.Used.Any(ref) || u.bases.Any(ref) }

// Needs reports whether a chunk is in use.
func (u *Usage) Needs(id chunk.ID) bool { return u.Used.Has(id) || u.bases.Has(id) }

// Keep returns which chunks of a block are in use, and the total lengths of these
// and of all chunks.
func (u *Usage) Keep(ref index.BlockRef) (keep []bool, length, total int64) {
	keep, length, total = u.Used.Block(ref)
	bases, _, _ := u.bases.Block(ref)
	_, b := u.Store.Index.Block(ref)
	for i := range keep {
		if bases[i] && !keep[i] {
			keep[i] = true
			length += int64(b.Chunks[i].Length)
		}
	}
	return keep, length, total
}

// markRemaining marks as used what remains of a tree of an unfinished backup. It passes over
// what is lost: the device sends the lost files again, but not the others.
func (u *Usage) markRemaining(ctx context.Context, id chunk.ID, above int) error {
	if _, added, ok := u.Used.Add(id); !ok || !added {
		return nil
	}
	n, err := tree.LoadBelow(ctx, u.Store.Chunk, id, above)
	if err = store.TreeDamage(err); errors.Is(err, store.ErrDamaged) {
		return nil
	} else if err != nil {
		return err
	}
	for i := range n.Entries {
		if err := u.markContent(ctx, &n.Entries[i].Content); err != nil {
			return err
		}
	}
	for _, child := range n.Children {
		if err := u.markRemaining(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// markContent marks what is left of a content as used.
func (u *Usage) markContent(ctx context.Context, c *tree.Content) error {
	mark := func(id chunk.ID) error { u.Used.Add(id); return nil }
	list := func(id chunk.ID) error {
		u.Used.Add(id)
		if _, err := u.Store.Chunk(ctx, id); errors.Is(err, store.ErrDamaged) {
			return tree.ErrSkipList // the other lists are not lost
		}
		return nil
	}
	err := c.All(ctx, u.Store.Chunk, list, mark)
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged) {
		return nil
	}
	return err
}

// markLost marks the remaining chunks of lost files as used, in case the missing
// chunks are restored. It ignores missing chunks.
func (u *Usage) markLost(ctx context.Context, l *record.Lost) error {
	if l == nil {
		return nil
	}
	load := func(ctx context.Context, id chunk.ID) ([]byte, error) {
		u.Used.Add(id)
		return u.Store.Chunk(ctx, id)
	}
	entries, _, err := l.Entries(ctx, load)
	if err != nil {
		return err
	}
	for i := range entries {
		if err := u.markContent(ctx, &entries[i].Content); err != nil {
			return err
		}
	}
	return nil
}
