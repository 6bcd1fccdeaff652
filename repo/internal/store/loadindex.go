package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// LoadIndex reads all index files. A damaged one does not stop it: packs that
// no index lists are then read for their headers, and IndexDamage tells. Packs
// that are not there are left out, so that their chunks count as unknown and
// are stored anew when they turn up in a backup; so do those of packs that are
// about to be removed, though they can be read. Nothing else may use the
// repository meanwhile.
func (r *Store) LoadIndex(ctx context.Context) error {
	// First: a list of packs to be removed that is written later waits until
	// this process has read it, if it holds a lock.
	lists, err := r.PruneLists(ctx)
	if err != nil {
		return err
	}
	x, damage, missing, err := r.settledIndex(ctx)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		if err := r.IndexFromPacks(ctx, x); err != nil {
			return fmt.Errorf("read pack headers in place of a damaged index: %w", err)
		}
	}
	var seen []layout.FileID
	going, announced := map[pack.ID]bool{}, map[layout.FileID]bool{}
	for _, l := range lists {
		seen = append(seen, l.ID)
		for _, id := range l.Packs {
			announced[id] = true
			if _, there := x.Pack(pack.ID(id)); there {
				x.Retire(pack.ID(id))
				going[pack.ID(id)] = true
			}
		}
	}
	x.Compact()
	r.Index, r.DamagedIndex, r.Missing, r.Retiring, r.Announced = x, damage, missing, going, announced
	r.Cache = newBlockCache(r.Options.Cache) // its keys mean blocks of the old index
	if r.Guard == nil {
		return nil
	}
	return r.Guard.See(ctx, seen)
}

// settledIndex reads the index files without what they say of packs that are
// not there, which it returns. While other processes replace index files and
// remove packs, what was listed can be gone when it is looked for. So that is
// believed of a file when it is met twice, and nothing new with it: several
// processes that store beside a prune can be quick enough for more than one try.
func (r *Store) settledIndex(ctx context.Context) (*index.Index, []error, []pack.ID, error) {
	var lost map[pack.ID]bool // by the try before
	var gone []string
	for {
		x, err := r.ReadIndex(ctx, lost)
		if err != nil {
			return nil, nil, nil, err
		}
		// After the index was read: whatever an index file lists was there
		// before it.
		there, err := r.ListPacks(ctx)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("list packs: %w", err)
		}
		settled, missing := true, map[pack.ID]bool{}
		for _, id := range x.without {
			if there[id] {
				settled = false
			} else {
				missing[id] = true
			}
		}
		for _, p := range x.Packs() {
			if !there[p.ID] {
				settled, missing[p.ID] = false, true
			}
		}
		for _, name := range x.vanished {
			settled = settled && slices.Contains(gone, name)
		}
		if settled {
			byName := func(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) }
			return x.Index, x.Damage, slices.SortedFunc(maps.Keys(missing), byName), nil
		}
		lost, gone = missing, x.vanished
	}
}

// IndexFiles is what the index files say, in one reading.
type IndexFiles struct {
	*index.Index
	Damage   []error
	vanished []string  // files of which that is the damage; others may have replaced them
	without  []pack.ID // packs that are listed, and were left out
}

// ReadIndex reads all index files but for what they say of some packs.
func (r *Store) ReadIndex(ctx context.Context, without map[pack.ID]bool) (*IndexFiles, error) {
	x := &IndexFiles{Index: index.New()}
	add := func(id pack.ID, size int64, h pack.Header) {
		if without[id] {
			x.without = append(x.without, id)
		} else {
			x.Add(id, size, h)
		}
	}
	err := r.Backend.List(ctx, layout.IndexDir, func(f backend.Info) error {
		b, err := r.ReadNamed(ctx, f.Name, index.MaxFileSize)
		if err == nil {
			err = index.OpenFile(b, r.IndexSealer, add)
			if err != nil {
				err = &DamageError{f.Name, err}
			}
		}
		if errors.Is(err, ErrDamaged) {
			x.Damage = append(x.Damage, err)
			if errors.Is(err, backend.ErrNotExist) {
				x.vanished = append(x.vanished, f.Name)
			}
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return x, nil
}

// ListPacks returns the packs that are there.
func (r *Store) ListPacks(ctx context.Context) (map[pack.ID]bool, error) {
	there := map[pack.ID]bool{}
	err := r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		if id, err := layout.ParseFileID(f.Name); err == nil {
			there[pack.ID(id)] = true
		}
		return nil
	})
	return there, err
}

// IndexDamage returns what LoadIndex found wrong with index files, and the packs
// that they list and that are not there.
func (r *Store) IndexDamage() []error {
	damage := slices.Clone(r.DamagedIndex)
	for _, id := range r.Missing {
		damage = append(damage, &DamageError{layout.PackName(id), errors.New("is missing")})
	}
	return damage
}

// UnknownChunk is the error for a chunk that no pack holds, or that cannot be decoded
// from what the packs hold.
func (r *Store) UnknownChunk(id chunk.ID) error {
	err := fmt.Errorf("chunk %s is in no index", id.Short())
	switch n := len(r.Missing); n {
	case 0:
		return &DamageError{"", err}
	case 1:
		return &DamageError{layout.PackName(r.Missing[0]), fmt.Errorf("it is missing, and %w", err)}
	case 2:
		return &DamageError{layout.PackName(r.Missing[0]), fmt.Errorf("it is missing, with another pack, and %w", err)}
	default:
		return &DamageError{layout.PackName(r.Missing[0]), fmt.Errorf("it is missing, with %d other packs, and %w", n-1, err)}
	}
}

// IndexFromPacks adds all packs that the index lacks from their own headers.
// Packs whose header cannot be read are left out: their chunks are lost until
// the pack is repaired, and will be missed by name.
func (r *Store) IndexFromPacks(ctx context.Context, x *index.Index) error {
	return r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil
		}
		if _, known := x.Pack(pack.ID(id)); known {
			return nil
		}
		h, err := r.ReadHeader(ctx, f)
		if errors.Is(err, ErrDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		x.Add(pack.ID(id), f.Size, h)
		return nil
	})
}

// ReadHeader reads the header of a pack file.
func (r *Store) ReadHeader(ctx context.Context, f backend.Info) (pack.Header, error) {
	h, err := pack.ReadHeader(readerAt{ctx, r.Backend, f.Name}, f.Size, r.PackSealer)
	if errors.Is(err, pack.ErrDamaged) {
		return pack.Header{}, &DamageError{f.Name, err}
	}
	return h, err
}
