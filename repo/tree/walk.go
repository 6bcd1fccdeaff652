package tree

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/chunk"
)

// Load returns the bytes of a chunk.
type Load func(ctx context.Context, id chunk.ID) ([]byte, error)

// NodeError is a failure to load or read one node.
type NodeError struct {
	ID  chunk.ID
	Err error
}

func (e *NodeError) Error() string {
	text := e.Err.Error()
	if strings.Contains(text, e.ID.Short()) {
		return "tree node: " + text // which names it
	}
	return fmt.Sprintf("tree node %s: %s", e.ID.Short(), text)
}

func (e *NodeError) Unwrap() error { return e.Err }

// LoadNode loads and parses a node. Its error is a *NodeError.
func LoadNode(ctx context.Context, load Load, id chunk.ID) (*Node, error) {
	b, err := load(ctx, id)
	if err != nil {
		return nil, &NodeError{id, err}
	}
	if len(b) > maxNodeSize {
		return nil, &NodeError{id, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))}
	}
	n, err := ParseNode(b)
	if err != nil {
		return nil, &NodeError{id, err}
	}
	return n, nil
}

// Walk calls fn for every entry below root, in order. It returns the first error,
// which is a *NodeError if a node cannot be loaded or parsed.
func Walk(ctx context.Context, load Load, root chunk.ID, fn func(*Entry) error) error {
	return WalkDomain(ctx, load, root, "", fn)
}

// WalkDomain is like Walk for the entries of one domain; "" means all. It loads only
// nodes that can contain such entries.
func WalkDomain(ctx context.Context, load Load, root chunk.ID, domain string, fn func(*Entry) error) error {
	w := walker{load: load, domain: domain, leaf: func(_ chunk.ID, leaf *Node) error {
		for i := range leaf.Entries {
			if e := &leaf.Entries[i]; domain == "" || e.Domain == domain {
				if err := fn(e); err != nil {
					return err
				}
			}
		}
		return nil
	}}
	return w.walk(ctx, root, -1)
}

// WalkLeaves calls fn for every leaf below root, in order, with its ID. With this ID and
// an entry's index in the leaf, callers find the entry again by loading one node.
func WalkLeaves(ctx context.Context, load Load, root chunk.ID, fn func(id chunk.ID, leaf *Node) error) error {
	w := walker{load: load, leaf: fn}
	return w.walk(ctx, root, -1)
}

// walker goes through the leaves of a tree.
type walker struct {
	load   Load
	domain string // "" means all
	leaf   func(id chunk.ID, leaf *Node) error
	last   Key // of the leaf before
	some   bool
}

// follows returns an error if a leaf does not come after the one before. A tree whose
// nodes refer to the same node again and again would have more entries than anybody can
// read; it fails at the second leaf that repeats.
func (w *walker) follows(id chunk.ID, leaf *Node) error {
	if len(leaf.Entries) == 0 {
		return nil
	}
	if first := leaf.Entries[0].Key(); w.some && w.last.Compare(first) >= 0 {
		return &NodeError{id, fmt.Errorf("%w: %q does not come after %q", ErrDamaged, first, w.last)}
	}
	w.last, w.some = leaf.Entries[len(leaf.Entries)-1].Key(), true
	return nil
}

// LoadBelow is like LoadNode for a child of a node of level above, or for a root if
// above is -1. It checks that the child's level is one less, so no tree is endless.
func LoadBelow(ctx context.Context, load Load, id chunk.ID, above int) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n, err := LoadNode(ctx, load, id)
	if err == nil && above >= 0 && int(n.Level) != above-1 {
		err = &NodeError{id, fmt.Errorf("%w: level %d below level %d", ErrDamaged, n.Level, above)}
	}
	return n, err
}

// walk visits a node. above is the level of its parent, -1 for a root.
func (w *walker) walk(ctx context.Context, id chunk.ID, above int) error {
	n, err := LoadBelow(ctx, w.load, id, above)
	if err != nil {
		return err
	}
	if n.Level == 0 {
		if err := w.follows(id, n); err != nil {
			return err
		}
		return w.leaf(id, n)
	}
	for i, c := range n.Children {
		if w.domain != "" {
			next := i + 1
			if strings.Compare(c.First.Domain, w.domain) > 0 {
				return nil
			}
			if next < len(n.Children) && n.Children[next].First.Domain < w.domain {
				continue
			}
		}
		if err := w.walk(ctx, c.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// Find returns the entry with a key, or nil if it does not exist. It loads one node of
// each level.
func Find(ctx context.Context, load Load, root chunk.ID, key Key) (*Entry, error) {
	above := -1
	for id := root; ; {
		n, err := LoadBelow(ctx, load, id, above)
		if err != nil {
			return nil, err
		}
		if n.Level == 0 {
			i, ok := slices.BinarySearchFunc(n.Entries, key, func(e Entry, k Key) int { return e.Key().Compare(k) })
			if !ok {
				return nil, nil
			}
			return &n.Entries[i], nil
		}
		// The last child that begins at or before the key can contain it.
		i, ok := slices.BinarySearchFunc(n.Children, key, func(c Child, k Key) int { return c.First.Compare(k) })
		if !ok && i == 0 {
			return nil, nil
		}
		if !ok {
			i--
		}
		id, above = n.Children[i].ID, int(n.Level)
	}
}
