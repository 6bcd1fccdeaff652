package tree

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/chunk"
)

// The shape of trees. All writers use the same numbers, so that equal entries make
// equal trees. Readers do not depend on these numbers.
const (
	// leafBits and innerBits make nodes of 64 items on average.
	leafBits  = 6
	innerBits = 6
	// A node that reaches cutEntries or cutSize ends even if no hash ends it.
	cutEntries = 512
	cutSize    = 256 << 10
)

// Save stores a node as a chunk and returns its ID. like is a chunk that is probably
// similar; nil if none is known.
type Save func(ctx context.Context, node []byte, like *chunk.ID) (chunk.ID, error)

// Builder builds a tree from entries in ascending order of their keys.
type Builder struct {
	save   Save
	old    *Outline
	levels []level
	last   Key
	count  uint64
}

// level is the node under construction at one height.
type level struct {
	node  Node
	size  int
	first Key
	count uint64 // number of entries below
}

// NewBuilder returns a builder that stores nodes with save. old is the outline of a
// tree that is probably similar, or nil.
func NewBuilder(save Save, old *Outline) *Builder {
	return &Builder{save: save, old: old, levels: make([]level, 1)}
}

// Add appends an entry. Its key must be greater than the previous entry's.
func (b *Builder) Add(ctx context.Context, e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	key := e.Key()
	if b.count > 0 && b.last.Compare(key) >= 0 {
		return fmt.Errorf("entry %q does not come after %q", key, b.last)
	}
	b.last = key
	b.count++
	leaf := &b.levels[0]
	if len(leaf.node.Entries) == 0 {
		leaf.first = key
	}
	leaf.node.Entries = append(leaf.node.Entries, *e)
	leaf.size += len(e.Path) + len(e.Domain) + len(e.Name) + 64 + len(chunk.ID{})*len(e.Content.IDs)
	leaf.count++
	h := pathHash(e.Path)
	if ends(h, leafBits) || len(leaf.node.Entries) >= cutEntries || leaf.size >= cutSize {
		return b.close(ctx, 0, h>>leafBits)
	}
	return nil
}

// close stores the node of a level and adds it to the level above. h is the last
// entry's hash without the bits that lower levels have used.
func (b *Builder) close(ctx context.Context, at int, h uint64) error {
	l := &b.levels[at]
	id, err := b.save(ctx, l.node.encode(), b.old.nodeAt(at, l.first))
	if err != nil {
		return err
	}
	child := Child{ID: id, First: l.first, Entries: l.count}
	*l = level{node: Node{Level: uint8(at), Entries: l.node.Entries[:0], Children: l.node.Children[:0]}}
	if at+1 == len(b.levels) {
		if at+1 == MaxHeight {
			return fmt.Errorf("more than %d entries", b.count)
		}
		b.levels = append(b.levels, level{node: Node{Level: uint8(at + 1)}})
	}
	up := &b.levels[at+1]
	if len(up.node.Children) == 0 {
		up.first = child.First
	}
	up.node.Children = append(up.node.Children, child)
	up.count += child.Entries
	up.size += len(child.First.Domain) + len(child.First.Name) + len(child.First.Path) + 64
	if ends(h, innerBits) || len(up.node.Children) >= cutEntries || up.size >= cutSize {
		return b.close(ctx, at+1, h>>innerBits)
	}
	return nil
}

// Finish stores the remaining nodes and returns the root.
func (b *Builder) Finish(ctx context.Context) (chunk.ID, error) {
	if b.count == 0 {
		return b.save(ctx, (&Node{}).encode(), nil)
	}
	for at := 0; ; at++ {
		l := &b.levels[at]
		top := at == len(b.levels)-1
		if top && len(l.node.Children) == 1 {
			return l.node.Children[0].ID, nil
		}
		if len(l.node.Entries)+len(l.node.Children) == 0 {
			continue
		}
		// A hash of all ones ends no higher node. The last entry's hash could end the
		// top node, and so add a level with one child.
		if err := b.close(ctx, at, ^uint64(0)); err != nil {
			return chunk.ID{}, err
		}
	}
}

// Count returns the number of entries added.
func (b *Builder) Count() uint64 { return b.count }

// ends reports whether a hash ends a node. A hash of zero ends no node. Otherwise a
// crafted path could add levels without end.
func ends(h uint64, bits int) bool { return h != 0 && h&(1<<bits-1) == 0 }

// pathHash is FNV-1a with the finalizer of MurmurHash3, since the low bits of FNV are
// not uniform.
func pathHash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h ^= uint64(s[i])
		h *= 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
