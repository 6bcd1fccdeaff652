package record

import (
	"context"
	"errors"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// Walk calls fn, in order, for the entries of one domain of a snapshot, or for all
// entries if domain is "".
func Walk(ctx context.Context, r *store.Store, s *Snapshot, domain string, fn func(*tree.Entry) error) error {
	return store.TreeDamage(tree.WalkDomain(ctx, r.Chunk, s.Root, domain, fn))
}

// WalkAll calls fn for all entries that can be read, and lost for each part of the
// tree that cannot.
func WalkAll(ctx context.Context, r *store.Store, s *Snapshot, fn func(*tree.Entry) error, lost func(error) error) error {
	w := NodeWalk{Load: r.Chunk, OnEntry: fn, OnLost: func(_ LostNode, err error) error { return lost(err) }}
	return w.Node(ctx, s.Root, -1)
}

// Leaves calls fn for every leaf of a snapshot's tree; see tree.WalkLeaves.
func Leaves(ctx context.Context, r *store.Store, s *Snapshot, fn func(id chunk.ID, leaf *tree.Node) error) error {
	return store.TreeDamage(tree.WalkLeaves(ctx, r.Chunk, s.Root, fn))
}

// Leaf loads one leaf of a tree.
func Leaf(ctx context.Context, r *store.Store, id chunk.ID) (*tree.Node, error) {
	n, err := tree.LoadNode(ctx, r.Chunk, id)
	return n, store.TreeDamage(err)
}

// Find returns the entry of a snapshot that has the given key, or nil if there is
// none.
func Find(ctx context.Context, r *store.Store, s *Snapshot, key tree.Key) (*tree.Entry, error) {
	e, err := tree.Find(ctx, r.Chunk, s.Root, key)
	return e, store.TreeDamage(err)
}

// Diff calls fn for every entry that differs between two snapshots; see
// tree.Diff.
func Diff(ctx context.Context, r *store.Store, a, b *Snapshot, fn func(a, b *tree.Entry) error) error {
	return store.TreeDamage(tree.Diff(ctx, r.Chunk, a.Root, b.Root, fn))
}

// Outline returns the outline of a snapshot's tree; see tree.NewOutline.
func Outline(ctx context.Context, r *store.Store, s *Snapshot) *tree.Outline {
	return tree.NewOutline(ctx, r.Chunk, s.Root)
}

// NodeWalk walks a tree in order and skips nodes that are lost.
type NodeWalk struct {
	Load    tree.Load
	OnEntry func(*tree.Entry) error
	OnLost  func(LostNode, error) error
	// Seen, if not nil, are nodes to skip. The walk adds those that it reads.
	Seen map[chunk.ID]bool
}

// Node walks a node and what is below it. above is the level of the node that refers
// to it, -1 for a root.
func (w *NodeWalk) Node(ctx context.Context, id chunk.ID, above int) error {
	if w.Seen[id] {
		return nil
	}
	if w.Seen != nil {
		w.Seen[id] = true
	}
	n, err := tree.LoadBelow(ctx, w.Load, id, above)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, store.ErrDamaged), errors.Is(err, tree.ErrDamaged):
		return w.OnLost(LostNode{id, above}, err)
	case err != nil:
		return err
	}
	for i := range n.Entries {
		if err := w.OnEntry(&n.Entries[i]); err != nil {
			return err
		}
	}
	for _, child := range n.Children {
		if err := w.Node(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}
