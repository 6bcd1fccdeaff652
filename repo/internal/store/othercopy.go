package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
)

// Detours maps chunks whose first copy cannot be decoded to another copy that can.
// The value is nil during the search and if there is no such copy. A block and its
// bases are decoded with one Detours, so each chunk is searched for once, and the
// search ends quickly even if copies need each other in a cycle. With a nil
// Detours, only first copies are used.
type Detours map[chunk.ID]*index.Location

// decodeBase returns the decoded block of a base and the location of the base. The
// location is loc, as the index gives it, or that of another copy if the block of
// loc is damaged.
func (r *Store) decodeBase(ctx context.Context, id chunk.ID, loc index.Location, above int, by Detours) (Decoded, index.Location, error) {
	other, met := by[id]
	if other != nil {
		b, err := r.baseBlock(ctx, other.Block, above, by)
		return b, *other, err
	}
	b, err := r.baseBlock(ctx, loc.Block, above, by)
	if err == nil || met || by == nil || !errors.Is(err, ErrDamaged) {
		return b, loc, err
	}
	by[id] = nil
	for _, copied := range r.Index.Copies(id)[1:] {
		b, failed := r.baseBlock(ctx, copied.Block, above, by)
		if failed == nil {
			by[id] = &copied
			return b, copied, nil
		}
		if !errors.Is(failed, ErrDamaged) {
			return Decoded{}, copied, failed
		}
	}
	return Decoded{}, loc, err
}

// baseBlock returns a block that a dictionary needs.
func (r *Store) baseBlock(ctx context.Context, ref index.BlockRef, above int, by Detours) (Decoded, error) {
	b, ok := r.Cache.get(ref)
	if ok {
		return b, nil
	}
	b, err := r.readBlock(ctx, ref, above, by)
	if err != nil {
		return Decoded{}, fmt.Errorf("dictionary: %w", err)
	}
	r.Cache.Put(ref, b)
	return b, nil
}

// otherCopy reads another copy of a chunk after its first copy, in block ref, has
// failed. Two programs that store at the same time can store a chunk twice.
func (r *Store) otherCopy(ctx context.Context, id chunk.ID, ref index.BlockRef, first error) ([]byte, error) {
	if !errors.Is(first, ErrDamaged) {
		return nil, first
	}
	by := Detours{id: nil}
	for _, loc := range r.Index.Copies(id)[1:] {
		b, err := r.baseBlock(ctx, loc.Block, 0, by)
		if err == nil {
			if data, err := r.cutChunk(b.Plain, loc, id); err == nil {
				return data, nil
			}
		} else if !errors.Is(err, ErrDamaged) {
			return nil, err
		}
	}
	return nil, r.FindCause(ctx, ref, first, map[index.BlockRef]bool{})
}
