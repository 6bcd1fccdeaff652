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

// LoadIndex reads all index files, as repo.Repo.LoadIndex describes.
func (r *Store) LoadIndex(ctx context.Context) error {
	// Read prune lists before the index. If this process holds a lock, the packs of
	// a list that is written later are not removed until this process has read that
	// list.
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
			return fmt.Errorf("read pack headers instead of a damaged index: %w", err)
		}
	}
	var seen []layout.FileID
	retiredIndexed, retired := map[pack.ID]bool{}, map[layout.FileID]bool{}
	for _, l := range lists {
		seen = append(seen, l.ID)
		for _, id := range l.Packs {
			retired[id] = true
			if _, listed := x.Pack(pack.ID(id)); listed {
				x.Retire(pack.ID(id))
				retiredIndexed[pack.ID(id)] = true
			}
		}
	}
	x.Compact()
	r.Index, r.DamagedIndex, r.Missing, r.RetiredIndexed, r.Retired = x, damage, missing, retiredIndexed, retired
	r.Cache = newBlockCache(r.Options.Cache) // the keys of the old one are blocks of the old index
	if r.Guard == nil {
		return nil
	}
	return r.Guard.See(ctx, seen)
}

// settledIndex reads the index files and leaves out packs that do not exist. It
// returns the index, the damage found, and the packs left out.
//
// While it reads, other processes may replace index files and remove packs. So it
// reads again until a reading finds the same packs missing as the one before, and
// no other index files missing.
func (r *Store) settledIndex(ctx context.Context) (*index.Index, []error, []pack.ID, error) {
	var lost map[pack.ID]bool // packs missing in the last reading
	var gone []string         // index files missing in the last reading
	for {
		x, err := r.ReadIndex(ctx, lost)
		if err != nil {
			return nil, nil, nil, err
		}
		// List packs after reading the index, since packs are stored before the index
		// file that lists them.
		exists, err := r.ListPacks(ctx)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("list packs: %w", err)
		}
		settled, missing := true, map[pack.ID]bool{}
		for _, id := range x.without {
			if exists[id] {
				settled = false
			} else {
				missing[id] = true
			}
		}
		for _, p := range x.Packs() {
			if !exists[p.ID] {
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

// IndexFiles is the result of one reading of the index files.
type IndexFiles struct {
	*index.Index
	Damage   []error
	vanished []string  // files that disappeared since they were listed; Damage has them, too
	without  []pack.ID // listed packs that were left out
}

// ReadIndex reads all index files. It leaves out the packs in without.
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

// ListPacks returns the packs that exist.
func (r *Store) ListPacks(ctx context.Context) (map[pack.ID]bool, error) {
	exists := map[pack.ID]bool{}
	err := r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		if id, err := layout.ParseFileID(f.Name); err == nil {
			exists[pack.ID(id)] = true
		}
		return nil
	})
	return exists, err
}

// IndexDamage returns the index files that LoadIndex found damaged, and the packs
// that are missing.
func (r *Store) IndexDamage() []error {
	damage := slices.Clone(r.DamagedIndex)
	for _, id := range r.Missing {
		damage = append(damage, &DamageError{layout.PackName(id), errors.New("is missing")})
	}
	return damage
}

// UnknownChunk returns the error for a chunk that is in no pack, or that cannot be
// decoded because its bases are in no pack.
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

// IndexFromPacks adds all packs that the index lacks, from their headers. It leaves
// out packs whose header is damaged: their chunks count as missing.
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
