package copy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
)

// keepCopy makes sure that a copy of a snapshot, which the target has, gives back
// everything. It heals the copy if it is incomplete.
func (c *copying) keepCopy(ctx context.Context, s, have *record.Snapshot, line *Snapshot) error {
	have, err := c.removeEqual(ctx, s, have)
	if err != nil {
		return err
	}
	lacks := c.judge(ctx, have)
	switch {
	case lacks == nil:
		if have, err = c.removeBroken(ctx, have); err != nil {
			return err
		}
		line.present(have)
		if c.incomplete[have.ID] {
			line.Outcome = Healed // healing another snapshot has restored what this one lacked
		}
		return c.copyCertificates(ctx, s, have)
	case !record.Damaged(ctx, lacks):
		return fmt.Errorf("target: %w", lacks)
	}
	// If the record was forgotten or changed after it was listed, what it needs may be gone.
	_, err = c.to.Backend.Stat(ctx, layout.SnapshotsDir+have.ID.String())
	if errors.Is(err, backend.ErrNotExist) {
		return c.again(ctx, s, have, line)
	}
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return c.heal(ctx, s, have, lacks, line)
}

// again copies a snapshot whose copy was forgotten or changed meanwhile.
func (c *copying) again(ctx context.Context, s, gone *record.Snapshot, line *Snapshot) error {
	c.target = slices.DeleteFunc(c.target, func(o *record.Snapshot) bool { return o.ID == gone.ID })
	now, err := c.copySnapshot(ctx, s)
	*line = now
	return err
}

// judge returns damage unless a copy gives back everything that its original has.
func (c *copying) judge(ctx context.Context, have *record.Snapshot) error {
	err := c.trees.Tree(ctx, have)
	if record.Damaged(ctx, err) && !c.indexed[have.ID] {
		// The index may be older than the record, so load it again. No writer runs now.
		c.indexed = maps.Clone(c.seen)
		if err := c.to.LoadListed(ctx); err != nil {
			return err
		}
		c.judgeAnew()
		err = c.trees.Tree(ctx, have)
	}
	if err == nil && have.Lost != nil {
		err = &store.DamageError{File: layout.SnapshotsDir + have.ID.String(), Err: errors.New("it says that files of the snapshot are lost")}
	}
	return err
}

// judgeAnew forgets what is known of the target's trees. A node or list that cannot be read
// counts as unknown from then on, so that it is stored again.
func (c *copying) judgeAnew() {
	c.trees = record.NewWholeness(c.to, c.to.Unsafe)
	c.trees.Unread = c.to.Index.Reject
}

// findIncomplete finds out which snapshots of the target are incomplete, before the first
// of them is healed: others may share what it lacks.
func (c *copying) findIncomplete(ctx context.Context) error {
	if c.incomplete != nil {
		return nil
	}
	c.incomplete = map[layout.FileID]bool{}
	for _, o := range c.target {
		switch err := c.judge(ctx, o); {
		case record.Damaged(ctx, err):
			c.incomplete[o.ID] = true
		case err != nil:
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}

// heal copies what a copy lacks. If the copy's record lists files as lost, or its tree is
// gone, heal replaces the record by one that has all files of the original.
func (c *copying) heal(ctx context.Context, s, have *record.Snapshot, lacks error, line *Snapshot) error {
	line.Outcome, line.Copy = Healed, &have.ID
	if err := c.findIncomplete(ctx); err != nil {
		return err
	}
	if err := c.learnIDs(ctx, s, have); err != nil {
		return err
	}
	var lost error // what the source lacks, too
	note := func(err error) error { lost = cmp.Or(lost, err); return nil }
	need, err := c.neededChunks(ctx, s, note)
	if err != nil {
		return err
	}
	if have.Lost != nil && s.Lost != nil && lost == nil && len(need) == 0 && c.trees.Tree(ctx, have) == nil {
		line.present(have) // the source has lost the same files, or more
		return c.copyCertificates(ctx, s, have)
	}
	if c.opts.DryRun {
		c.forecast(line, need)
		if lost == nil && s.Lost == nil {
			return nil
		}
		return incomplete(line, have, lacks, lost)
	}
	w, err := c.copyContent(ctx, need, note)
	if err != nil {
		return err
	}
	defer w.Close()
	root := have.Root
	if lost == nil && s.Lost == nil {
		if root, err = c.rebuild(ctx, w, s); err != nil {
			return err
		}
	}
	if err := w.Finish(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	line.NewBytes, line.StoredBytes = w.Total().Bytes, w.Total().Stored
	c.judgeAnew()
	lacks = c.judge(ctx, have)
	if record.Damaged(ctx, lacks) && lost == nil && s.Lost == nil {
		n, err := c.replace(ctx, s, have, root)
		if errors.Is(err, store.ErrChanged) {
			return c.again(ctx, s, have, line)
		}
		if err != nil {
			return fmt.Errorf("target: replace the record of the copy %s: %w", have.ID.Short(), err)
		}
		have, line.Copy = n, &n.ID
		lacks = c.judge(ctx, have)
	}
	switch {
	case record.Damaged(ctx, lacks):
		return incomplete(line, have, lacks, lost)
	case lacks != nil:
		return fmt.Errorf("target: %w", lacks)
	}
	return c.copyCertificates(ctx, s, have)
}

// incomplete returns the error for a copy that cannot be healed.
func incomplete(line *Snapshot, have *record.Snapshot, lacks, lost error) error {
	line.Outcome = Incomplete
	if lost == nil {
		lost = errors.New("its record says that files are lost")
	}
	return fmt.Errorf("its copy %s in the target is incomplete: %w; the source lacks the same: %v", have.ID.Short(), lacks, lost)
}

// rebuild stores the tree of a snapshot again, as far as the target lacks it. It reads the
// nodes that the target has: those below a damaged one have not been read yet.
func (c *copying) rebuild(ctx context.Context, w *writer.Writer, s *record.Snapshot) (chunk.ID, error) {
	var previous *record.Snapshot
	if parent := c.findParent(s); parent != nil {
		previous = c.copyOf(parent)
	}
	hasher := c.to.NewHasher()
	save := func(ctx context.Context, node []byte, like *chunk.ID) (chunk.ID, error) {
		if id := hasher.ID(node); c.to.Index.Has(id) {
			if _, err := c.to.Chunk(ctx, id); record.Damaged(ctx, err) {
				c.to.Index.Reject(id)
			}
		}
		return w.SaveNode(ctx, node, like)
	}
	return c.copyTree(ctx, save, s, previous)
}

// replace replaces the record of a copy by one with a complete tree. Its labels stay.
func (c *copying) replace(ctx context.Context, s, have *record.Snapshot, root chunk.ID) (*record.Snapshot, error) {
	if err := c.keepsAll(ctx, have, root); err != nil {
		return nil, err
	}
	n := record.Successor(c.to, have)
	n.Root, n.Files, n.Bytes, n.Lost = root, s.Files, s.Bytes, nil
	n.Complete = have.Complete || have.Lost != nil && have.Lost.WasComplete
	n.Problems = record.WithoutLostNotes(have.Problems)
	if err := record.Replace(ctx, c.to, have, n); err != nil {
		return nil, err
	}
	c.target[slices.Index(c.target, have)] = n
	c.seen[n.ID], c.indexed[n.ID] = true, true
	return n, nil
}

// keepsAll returns damage unless the tree at root has all entries of the copy that can
// still be read, and all files that the record of the copy lists as lost. That both are
// the same snapshot is only a claim of the source. This check proves that nothing is lost
// if the new tree replaces the old one.
func (c *copying) keepsAll(ctx context.Context, have *record.Snapshot, root chunk.ID) error {
	has := func(find func(tree.Key) *tree.Entry, e *tree.Entry) error {
		if n := find(e.Key()); n == nil || !n.Equal(e) {
			return &store.DamageError{Err: fmt.Errorf("the source has another snapshot under the same name: %q differs, or is missing", e.Path)}
		}
		return nil
	}
	lost, _, err := have.Lost.Entries(ctx, c.to.Chunk)
	if err != nil {
		return err
	}
	err = c.findIn(ctx, root, func(find func(tree.Key) *tree.Entry) error {
		return walkReadable(ctx, c.to, have, func(e *tree.Entry) error { return has(find, e) })
	})
	if err != nil {
		return err
	}
	return c.findIn(ctx, root, func(find func(tree.Key) *tree.Entry) error {
		for i := range lost {
			if err := has(find, &lost[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// findIn calls fn with a function that finds entries of a tree of the target by their keys.
// These must be asked for in ascending order.
func (c *copying) findIn(ctx context.Context, root chunk.ID, fn func(find func(tree.Key) *tree.Entry) error) error {
	var failed error
	next, stop := iter.Pull(func(yield func(*tree.Entry) bool) {
		ended := errors.New("ended")
		failed = record.Walk(ctx, c.to, &record.Snapshot{Root: root}, "", func(e *tree.Entry) error {
			if !yield(e) {
				return ended
			}
			return nil
		})
		if errors.Is(failed, ended) {
			failed = nil
		}
	})
	defer stop()
	e, more := next()
	err := fn(func(key tree.Key) *tree.Entry {
		for more && e.Key().Compare(key) < 0 {
			e, more = next()
		}
		if more && e.Key() == key {
			return e
		}
		return nil
	})
	return cmp.Or(failed, err)
}

// removeBroken removes older records of a copy that are not whole, if the copy itself is.
// An interrupted run or repair has left them, and a prune would refuse to run because of
// them. removeBroken first replaces the record of the copy by an equal one. So another
// process that is about to supersede one of the older records loses nothing.
func (c *copying) removeBroken(ctx context.Context, have *record.Snapshot) (*record.Snapshot, error) {
	for _, old := range c.superseded {
		if old.FirstID() != have.FirstID() || c.opts.DryRun || old.Lost == nil && !record.Damaged(ctx, c.trees.Tree(ctx, old)) {
			continue
		}
		n, err := record.ChangeLabels(ctx, c.to, have, have.Labels())
		if err != nil {
			return nil, fmt.Errorf("target: %w", err)
		}
		c.target[slices.Index(c.target, have)] = n
		c.seen[n.ID], c.indexed[n.ID] = true, true
		c.superseded = slices.DeleteFunc(c.superseded, func(o *record.Snapshot) bool { return o.FirstID() == have.FirstID() })
		return n, nil
	}
	return have, nil
}
