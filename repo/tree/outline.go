package tree

import (
	"context"
	"slices"

	"github.com/snap-backup/snap/chunk"
)

// Outline has the first keys of all nodes of a tree. A new tree uses it to store its
// nodes as deltas of similar ones.
type Outline struct {
	levels [][]Child // by height, each in order
}

// NewOutline reads the inner nodes of a tree. It omits nodes that cannot be read, since
// an outline only saves space.
func NewOutline(ctx context.Context, load Load, root chunk.ID) *Outline {
	o := &Outline{}
	o.read(ctx, load, Child{ID: root}, -1)
	return o
}

func (o *Outline) read(ctx context.Context, load Load, at Child, above int) {
	n, err := LoadBelow(ctx, load, at.ID, above)
	if err != nil {
		return
	}
	level := int(n.Level)
	for len(o.levels) <= level {
		o.levels = append(o.levels, nil)
	}
	o.levels[level] = append(o.levels[level], at)
	for _, c := range n.Children {
		if level == 1 {
			o.levels[0] = append(o.levels[0], c)
			continue
		}
		o.read(ctx, load, c, level)
	}
}

// nodeAt returns the node of a level that would contain a key.
func (o *Outline) nodeAt(level int, key Key) *chunk.ID {
	if o == nil || level >= len(o.levels) || len(o.levels[level]) == 0 {
		return nil
	}
	nodes := o.levels[level]
	i, ok := slices.BinarySearchFunc(nodes, key, func(c Child, k Key) int { return c.First.Compare(k) })
	if !ok && i > 0 {
		i--
	}
	return &nodes[i].ID
}
