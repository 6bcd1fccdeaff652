package repo

import (
	"context"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/tree"
)

// findNews looks at what each snapshot has changed since the one before it of the
// same device, and notes what was at the places of the chunks in leaners.
func (b *rebaser) findNews(ctx context.Context) error {
	for _, mine := range byDevice(b.u.list) {
		slices.SortStableFunc(mine, func(a, b *Snapshot) int { return a.Time.Compare(b.Time) })
		for i := 1; i < len(mine); i++ {
			err := tree.Diff(ctx, b.u.r.Chunk, mine[i-1].Root, mine[i].Root, func(old, now *tree.Entry) error {
				if old == nil || now == nil || b.ids > maxNews {
					return nil
				}
				return b.file(ctx, mine[i], &old.Content, &now.Content)
			})
			if err != nil {
				return treeDamage(err)
			}
		}
	}
	return nil
}

// file notes the new chunks of one file of a snapshot.
func (b *rebaser) file(ctx context.Context, in *Snapshot, old, now *tree.Content) error {
	p := b.u.r.newPredecessor(old)
	if p == nil {
		return nil
	}
	p.load(ctx)
	file := &predecessor{} // stands for it, and is smaller
	off := int64(0)
	return treeDamage(now.Chunks(ctx, b.u.r.Chunk, func(id chunk.ID) error {
		loc, ok := b.x.Lookup(id)
		if !ok {
			return b.u.r.unknown(id)
		}
		at := off
		off += int64(loc.Size)
		_, there := p.places[id]
		l := b.lean[loc.Block]
		if _, before := b.met[id]; before || there || l == nil || !l.chosen {
			p.met(id, at)
			return nil
		}
		near, far := p.around(ctx, at, int(loc.Size))
		if b.far(loc.Block) {
			near = far
		}
		if len(near) == 0 {
			return nil
		}
		b.met[id] = struct{}{}
		b.news = append(b.news, news{pack.Chunk{ID: id, Length: loc.Size}, loc.Block, in, place{file, at / deltaTarget}, slices.Clone(near)})
		b.ids += 1 + len(near)
		return nil
	}))
}

// far reports whether a block was encoded with more than what was at its place:
// its pages had moved.
func (b *rebaser) far(ref index.BlockRef) bool {
	size := int64(0)
	_, dict := b.x.Dependencies(ref)
	for _, id := range dict {
		n, _ := b.x.Size(id)
		size += int64(n)
	}
	return size >= b.x.PlainSize(ref)+farMargin
}

// beneath returns the chunks in use to which a block's dictionary leads, through
// leftovers.
func (b *rebaser) beneath(ref index.BlockRef) (found []base) {
	walk := newChainWalk(b.x)
	seen := map[chunk.ID]bool{}
	_, open := b.x.Dependencies(ref)
	for open = slices.Clone(open); len(open) > 0 && len(found) < pack.MaxDictChunks; {
		id := open[0]
		open = open[1:]
		if seen[id] {
			continue
		}
		seen[id] = true
		loc, ok := b.x.Lookup(id)
		switch {
		case !ok:
		case !b.ghost(id, loc):
			found = append(found, base{id, loc.Size})
		default:
			open = append(open, walk.place(loc)...)
		}
	}
	return found
}

// now returns about what a chunk takes: its part of a block. bottom is what it would take
// without dictionary, by what the blocks that it leads to take that have none.
func (b *rebaser) now(id chunk.ID) (own, bottom int64) {
	walk := newChainWalk(b.x)
	seen := map[chunk.ID]bool{}
	var mine, stored, plain int64
	for open := []chunk.ID{id}; len(open) > 0; {
		id := open[0]
		open = open[1:]
		loc, ok := b.x.Lookup(id)
		if !ok || seen[id] {
			continue
		}
		n, dict := b.x.Dependencies(loc.Block)
		share := int64(n) * int64(loc.Size) / max(b.x.PlainSize(loc.Block), 1)
		if len(seen) == 0 {
			own, mine = share, int64(loc.Size)
		}
		if len(dict) == 0 {
			stored, plain = stored+share, plain+int64(loc.Size)
		}
		seen[id] = true
		open = append(open, walk.place(loc)...)
	}
	return own, stored * mine / max(plain, 1)
}
