package repo

import (
	"context"
	"errors"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/tree"
)

// Walk calls fn for every entry of a snapshot in order, or for those of one
// domain.
func (r *Repo) Walk(ctx context.Context, s *Snapshot, domain string, fn func(*tree.Entry) error) error {
	return treeDamage(tree.WalkDomain(ctx, r.Chunk, s.Root, domain, fn))
}

// Leaves calls fn for every leaf of a snapshot's tree; see tree.WalkLeaves.
func (r *Repo) Leaves(ctx context.Context, s *Snapshot, fn func(id chunk.ID, leaf *tree.Node) error) error {
	return treeDamage(tree.WalkLeaves(ctx, r.Chunk, s.Root, fn))
}

// Leaf loads one leaf of a tree.
func (r *Repo) Leaf(ctx context.Context, id chunk.ID) (*tree.Node, error) {
	n, err := tree.LoadNode(ctx, r.Chunk, id)
	return n, treeDamage(err)
}

// Find returns the entry of a snapshot with a key, or nil.
func (r *Repo) Find(ctx context.Context, s *Snapshot, key tree.Key) (*tree.Entry, error) {
	e, err := tree.Find(ctx, r.Chunk, s.Root, key)
	return e, treeDamage(err)
}

// Diff calls fn for every entry that differs between two snapshots; see
// tree.Diff.
func (r *Repo) Diff(ctx context.Context, a, b *Snapshot, fn func(a, b *tree.Entry) error) error {
	return treeDamage(tree.Diff(ctx, r.Chunk, a.Root, b.Root, fn))
}

// Outline returns the outline of a snapshot's tree; see tree.NewOutline.
func (r *Repo) Outline(ctx context.Context, s *Snapshot) *tree.Outline {
	return tree.NewOutline(ctx, r.Chunk, s.Root)
}

// nodeWalk walks a tree in order and goes on behind nodes that are lost.
type nodeWalk struct {
	load  tree.Load
	entry func(*tree.Entry) error
	lost  func(LostNode, error) error
	// seen, if not nil, are nodes that need not be looked at again.
	seen map[chunk.ID]bool
}

func (w *nodeWalk) node(ctx context.Context, id chunk.ID, above int) error {
	if w.seen[id] {
		return nil
	}
	if w.seen != nil {
		w.seen[id] = true
	}
	n, err := tree.LoadBelow(ctx, w.load, id, above)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrDamaged), errors.Is(err, tree.ErrDamaged):
		return w.lost(LostNode{id, above}, err)
	case err != nil:
		return err
	}
	for i := range n.Entries {
		if err := w.entry(&n.Entries[i]); err != nil {
			return err
		}
	}
	for _, child := range n.Children {
		if err := w.node(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}
