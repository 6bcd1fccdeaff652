package tree

import (
	"context"

	"github.com/snap-backup/snap/chunk"
)

// Diff calls fn for every key at which two trees differ, in order, with the entries of
// both trees; an entry is nil if a tree does not have the key. It does not load nodes
// that both trees have, so its cost depends on the differences, not on the size of the
// trees. Entries differ if any of their fields do.
func Diff(ctx context.Context, load Load, a, b chunk.ID, fn func(a, b *Entry) error) error {
	x, y := newFrontier(load, a), newFrontier(load, b)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, q := x.head(), y.head()
		switch {
		case p == nil && q == nil:
			return nil
		case p != nil && q != nil && p.entry == nil && q.entry == nil && p.id == q.id:
			x.drop()
			y.drop()
		case p != nil && p.entry == nil && (q == nil || q.entry != nil || p.level >= q.level):
			// The higher node comes first, since it may contain the other one.
			if err := x.expand(ctx); err != nil {
				return err
			}
		case q != nil && q.entry == nil:
			if err := y.expand(ctx); err != nil {
				return err
			}
		default:
			if err := compare(x, y, p, q, fn); err != nil {
				return err
			}
		}
	}
}

// compare removes the entry with the lower key, or both if their keys are equal, and
// calls fn if they differ.
func compare(x, y *frontier, p, q *item, fn func(a, b *Entry) error) error {
	order := 0
	switch {
	case p == nil:
		order = 1
	case q == nil:
		order = -1
	default:
		order = p.entry.Key().Compare(q.entry.Key())
	}
	switch {
	case order < 0:
		x.drop()
		return fn(p.entry, nil)
	case order > 0:
		y.drop()
		return fn(nil, q.entry)
	}
	x.drop()
	y.drop()
	if p.entry.Equal(q.entry) {
		return nil
	}
	return fn(p.entry, q.entry)
}

// item is an entry, or a node that was not loaded yet.
type item struct {
	id    chunk.ID
	level int // of a node; MaxHeight for a root
	entry *Entry
}

// frontier is the part of a tree that Diff has not visited yet, as a stack.
type frontier struct {
	load  Load
	items []item
}

func newFrontier(load Load, root chunk.ID) *frontier {
	return &frontier{load, []item{{id: root, level: MaxHeight}}}
}

func (f *frontier) head() *item {
	if len(f.items) == 0 {
		return nil
	}
	return &f.items[len(f.items)-1]
}

func (f *frontier) drop() { f.items = f.items[:len(f.items)-1] }

// expand replaces the node on top by its items.
func (f *frontier) expand(ctx context.Context) error {
	it := *f.head()
	above := it.level + 1
	if it.level == MaxHeight {
		above = -1
	}
	n, err := LoadBelow(ctx, f.load, it.id, above)
	if err != nil {
		return err
	}
	f.drop()
	for i := len(n.Entries) - 1; i >= 0; i-- {
		f.items = append(f.items, item{entry: &n.Entries[i]})
	}
	for i := len(n.Children) - 1; i >= 0; i-- {
		f.items = append(f.items, item{id: n.Children[i].ID, level: int(n.Level) - 1})
	}
	return nil
}

// Equal reports whether two entries have the same encoding.
func (e *Entry) Equal(o *Entry) bool {
	return string(e.append(nil)) == string(o.append(nil))
}

// SameContent reports whether two entries have the same content. Their bytes in the
// backup folder can still differ if they are encrypted.
func (e *Entry) SameContent(o *Entry) bool {
	if e.Kind != o.Kind || e.Content.Size != o.Content.Size || e.Content.Level != o.Content.Level || len(e.Content.IDs) != len(o.Content.IDs) {
		return false
	}
	for i, id := range e.Content.IDs {
		if o.Content.IDs[i] != id {
			return false
		}
	}
	return true
}
