package tree

import (
	"encoding/binary"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack/binread"
)

// Limits on nodes.
const (
	maxNodeSize    = 1 << 20 // bytes; the builder makes far smaller ones
	maxNodeEntries = 1024
	// MaxHeight is the maximum number of levels of a tree.
	MaxHeight = 12
)

const nodeVersion = 1

// Node is a leaf (level 0) with entries, or an inner node with children.
type Node struct {
	Level    uint8
	Entries  []Entry
	Children []Child
}

// Child is one node below an inner node.
type Child struct {
	ID      chunk.ID
	First   Key    // key of the first entry below
	Entries uint64 // number of entries below
}

func (n *Node) encode() []byte {
	b := []byte{nodeVersion, n.Level}
	if n.Level == 0 {
		b = binary.AppendUvarint(b, uint64(len(n.Entries)))
		for i := range n.Entries {
			b = n.Entries[i].append(b)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(n.Children)))
	for i := range n.Children {
		b = n.Children[i].append(b)
	}
	return b
}

func (c *Child) append(b []byte) []byte {
	b = append(b, c.ID[:]...)
	b = binary.AppendUvarint(b, c.Entries)
	b = appendString(b, c.First.Domain)
	b = appendString(b, c.First.Name)
	return appendString(b, c.First.Path)
}

// ParseNode parses a node. Its entries or children are in order. Only a leaf can have
// none: it is the root of an empty tree.
func ParseNode(b []byte) (*Node, error) {
	r := binread.NewReader(b)
	if v := r.Byte(); r.Err() == nil && v != nodeVersion {
		return nil, fmt.Errorf("%w: version %d", ErrDamaged, v)
	}
	n := &Node{Level: r.Byte()}
	if n.Level >= MaxHeight {
		r.Fail("level %d", n.Level)
	}
	// The smallest entry takes 11 bytes, the smallest child more.
	count := r.Count(11)
	if count > maxNodeEntries || n.Level > 0 && count == 0 {
		r.Fail("%d entries", count)
	}
	var last Key
	for i := range count {
		var key Key
		if n.Level == 0 {
			n.Entries = append(n.Entries, readEntry(r))
			key = n.Entries[i].Key()
		} else {
			c := Child{ID: r.ID(), Entries: r.Uvarint()}
			c.First = Key{r.String(MaxName), r.String(MaxName), r.String(MaxPath)}
			n.Children = append(n.Children, c)
			key = c.First
		}
		if r.Err() == nil && i > 0 && last.Compare(key) >= 0 {
			r.Fail("%q does not come after %q", key, last)
		}
		if r.Err() != nil {
			break
		}
		last = key
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return n, nil
}
