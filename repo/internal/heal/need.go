package heal

import (
	"context"
	"errors"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// packFinder finds the packs to fetch from the mirror.
type packFinder struct {
	h       *healer
	nodes   map[chunk.ID]bool // nodes that were read
	missing map[chunk.ID]bool // chunks that are neither here nor in the mirror
	blocks  map[block]bool    // blocks whose dictionaries were followed
	added   map[pack.ID]bool  // packs here that the repaired index would list
	packs   map[pack.ID]bool
	order   []pack.ID // to fetch
}

// block is a block of this repository's index or of the mirror's index.
type block struct {
	ref  index.BlockRef
	here bool
}

func (n *packFinder) findSnapshot(ctx context.Context, s *record.Snapshot) error {
	if err := n.findTree(ctx, s.Root, -1); err != nil || s.Lost == nil {
		return err
	}
	if s.Lost.Tree != nil {
		if err := n.findTree(ctx, *s.Lost.Tree, -1); err != nil {
			return err
		}
	}
	for _, l := range s.Lost.Nodes {
		if err := n.findTree(ctx, l.ID, l.Level); err != nil {
			return err
		}
	}
	return nil
}

// findChunk finds the packs that a chunk and its bases must be fetched from.
func (n *packFinder) findChunk(id chunk.ID, above int) {
	x := n.h.r.Index
	loc, here := x.Lookup(id)
	if here = here && !n.h.bad[loc.Pack]; !here {
		x = n.h.m.Index
		var inMirror bool
		if loc, inMirror = x.Lookup(id); !inMirror || above > pack.MaxDepth {
			n.missing[id] = true
			return
		}
		if _, known := n.h.r.Index.Pack(loc.Pack); !n.packs[loc.Pack] && (!known && !n.added[loc.Pack] || n.h.bad[loc.Pack]) {
			n.packs[loc.Pack] = true
			n.order = append(n.order, loc.Pack)
		}
	}
	at := block{loc.Block, here}
	if n.blocks[at] {
		return
	}
	n.blocks[at] = true
	_, dict := x.Dependencies(loc.Block)
	for _, base := range dict {
		n.findChunk(base, above+1)
	}
}

// load reads a chunk from here or from the mirror.
func (n *packFinder) load(ctx context.Context, id chunk.ID) ([]byte, error) {
	n.findChunk(id, 0)
	if n.h.r.Index.Has(id) {
		b, err := n.h.r.Chunk(ctx, id)
		if err == nil || !errors.Is(err, store.ErrDamaged) {
			return b, err
		}
	}
	return n.h.m.Chunk(ctx, id)
}

// findTree finds the packs that a node and everything below it must be fetched from.
// It walks each node once.
func (n *packFinder) findTree(ctx context.Context, id chunk.ID, above int) error {
	if n.nodes[id] {
		return nil
	}
	n.nodes[id] = true
	node, err := tree.LoadBelow(ctx, n.load, id, above)
	if err != nil {
		return n.ignoreDamage(ctx, err)
	}
	note := func(id chunk.ID) error { n.findChunk(id, 0); return nil }
	for i := range node.Entries {
		if err := node.Entries[i].Content.All(ctx, n.load, note, note); err != nil {
			if err := n.ignoreDamage(ctx, err); err != nil {
				return err
			}
		}
	}
	for _, child := range node.Children {
		if err := n.findTree(ctx, child.ID, int(node.Level)); err != nil {
			return err
		}
	}
	return nil
}

// ignoreDamage returns nil for damage, since content that neither repository has
// cannot be healed.
func (n *packFinder) ignoreDamage(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged) {
		return nil
	}
	return err
}
