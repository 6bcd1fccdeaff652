package rebase

import (
	"context"
	"errors"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
)

// findNewChunks compares each snapshot with the one before it of the same device. For
// each new chunk that is in a dependent, it notes the chunks at the same position of
// the earlier version.
func (b *rebaser) findNewChunks(ctx context.Context) error {
	for _, list := range record.ByDevice(b.u.Snapshots) {
		slices.SortStableFunc(list, func(a, b *record.Snapshot) int { return a.Time.Compare(b.Time) })
		for i := 1; i < len(list); i++ {
			err := tree.Diff(ctx, b.u.Store.Chunk, list[i-1].Root, list[i].Root, func(old, now *tree.Entry) error {
				if old == nil || now == nil || b.ids > maxNewChunks {
					return nil
				}
				return b.noteFile(ctx, list[i], &old.Content, &now.Content)
			})
			if err != nil {
				return store.TreeDamage(err)
			}
		}
	}
	return nil
}

// noteFile notes the new chunks of one file of a snapshot.
func (b *rebaser) noteFile(ctx context.Context, in *record.Snapshot, old, now *tree.Content) error {
	p := writer.NewPredecessor(b.u.Store, old)
	if p == nil {
		return nil
	}
	p.Load(ctx)
	file := &writer.Predecessor{} // identifies p's file, and takes less memory
	off, count := int64(0), 0
	err := now.Chunks(ctx, b.u.Store.Chunk, func(id chunk.ID) error {
		if count++; count > maxNoted {
			return errNoted
		}
		loc, ok := b.x.Lookup(id)
		if !ok {
			return b.u.Store.UnknownChunk(id)
		}
		at := off
		off += int64(loc.Size)
		_, inOld := p.Places[id]
		l := b.dependents[loc.Block]
		if _, known := b.met[id]; known || inOld || l == nil || !l.chosen {
			p.NoteKnown(id, at)
			return nil
		}
		near, far := p.Around(ctx, at, int(loc.Size))
		if b.isFar(loc.Block) {
			near = far
		}
		if len(near) == 0 {
			return nil
		}
		b.met[id] = struct{}{}
		b.newChunks = append(b.newChunks, newChunk{pack.Chunk{ID: id, Length: loc.Size}, loc.Block, in, writer.Region{File: file, Number: at / writer.DeltaTarget}, slices.Clone(near)})
		b.ids += 1 + len(near)
		return nil
	})
	if errors.Is(err, errNoted) {
		return nil
	}
	return store.TreeDamage(err)
}

// maxNoted bounds the chunks of a file that are noted. What is left out stays a delta
// against its old bases.
const maxNoted = 1 << 22

var errNoted = errors.New("enough chunks were noted")

// isFar reports whether a block was encoded with a far dictionary, because pages have
// moved.
func (b *rebaser) isFar(ref index.BlockRef) bool {
	size := int64(0)
	_, dict := b.x.Dependencies(ref)
	for _, id := range dict {
		n, _ := b.x.Size(id)
		size += int64(n)
	}
	return size >= b.x.PlainSize(ref)+writer.FarMargin
}

// liveBases returns the chunks in use that a block needs, directly or through
// leftovers.
func (b *rebaser) liveBases(ref index.BlockRef) (found []chain.Base) {
	walk := chain.NewWalk(b.x)
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
		case !b.isLeftover(id, loc):
			found = append(found, chain.Base{ID: id, Size: loc.Size})
		default:
			open = append(open, walk.Place(loc)...)
		}
	}
	return found
}

// cost estimates the stored bytes of a chunk. own is the chunk's part of its block.
// bottom is the estimate without a dictionary, assuming the compression ratio of
// the full blocks at the end of the chain.
func (b *rebaser) cost(id chunk.ID) (own, bottom int64) {
	walk := chain.NewWalk(b.x)
	seen := map[chunk.ID]bool{}
	var size, stored, plain int64
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
			own, size = share, int64(loc.Size)
		}
		if len(dict) == 0 {
			stored, plain = stored+share, plain+int64(loc.Size)
		}
		seen[id] = true
		open = append(open, walk.Place(loc)...)
	}
	return own, stored * size / max(plain, 1)
}
