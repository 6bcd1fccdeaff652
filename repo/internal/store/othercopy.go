package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
)

// Detours are the chunks that could not be had from where the index says, met
// on the way down to one block: where else they are sound, or nil while that is
// being looked for and if they are nowhere. Copies can need each other in a
// circle, and every copy can need chunks that have copies; each chunk is looked
// for once on a way, so the search always ends, and soon. A way with nil for its
// detours takes none.
type Detours map[chunk.ID]*index.Location

// base returns the block that a chunk of a dictionary is to be taken from, and
// the place in it: loc, which the index gives, or that of another copy if the
// block of loc is damaged.
func (r *Store) base(ctx context.Context, id chunk.ID, loc index.Location, above int, by Detours) (Decoded, index.Location, error) {
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

// otherCopy finds a chunk in another place than the first, whose block ref has
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
