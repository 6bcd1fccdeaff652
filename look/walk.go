package look

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// walker goes through the leaves of a tree that can have matching entries.
type walker struct {
	load     tree.Load
	patterns *Patterns
	leaf     func(*tree.Node) error
	lost     func(error) error // called for a part that cannot be read
	last     tree.Key          // of the leaf before
	some     bool
}

// walk visits a node. above is the level of its parent, -1 for a root. next is the first
// key behind the node; nil if it is the last one.
func (w *walker) walk(ctx context.Context, id chunk.ID, above int, next *tree.Key) error {
	n, err := loadNode(ctx, w.load, id, above)
	if errors.Is(err, repo.ErrDamaged) && ctx.Err() == nil {
		return w.lost(err)
	}
	if err != nil {
		return err
	}
	if n.Level == 0 {
		// Without this check, a tree whose nodes refer to the same node again and again
		// would be endless.
		if len(n.Entries) > 0 {
			if first := n.Entries[0].Key(); w.some && w.last.Compare(first) >= 0 {
				return w.lost(disorder(id, first, w.last))
			}
			w.last, w.some = n.Entries[len(n.Entries)-1].Key(), true
		}
		return w.leaf(n)
	}
	return eachChild(n, w.patterns, next, func(i int, next *tree.Key) error {
		return w.walk(ctx, n.Children[i].ID, int(n.Level), next)
	})
}

// eachChild calls fn for the numbers of the children that can have matching entries. next is the first
// key behind the node.
func eachChild(n *tree.Node, p *Patterns, next *tree.Key, fn func(i int, next *tree.Key) error) error {
	for i := range n.Children {
		behind := next
		if i+1 < len(n.Children) {
			behind = &n.Children[i+1].First
		}
		if !p.within(&n.Children[i].First, behind) {
			continue
		}
		if err := fn(i, behind); err != nil {
			return err
		}
	}
	return nil
}

// loadNode loads a node. Its error is repo.ErrDamaged if the node is lost or damaged.
func loadNode(ctx context.Context, load tree.Load, id chunk.ID, above int) (*tree.Node, error) {
	n, err := tree.LoadBelow(ctx, load, id, above)
	if errors.Is(err, tree.ErrDamaged) && !errors.Is(err, repo.ErrDamaged) {
		err = fmt.Errorf("%w: %w", repo.ErrDamaged, err)
	}
	return n, err
}

// disorder is the error for a leaf that does not come after the one before.
func disorder(id chunk.ID, first, last tree.Key) error {
	return fmt.Errorf("%w: %w", repo.ErrDamaged, &tree.NodeError{ID: id, Err: fmt.Errorf("%w: %q does not come after %q", tree.ErrDamaged, first, last)})
}
