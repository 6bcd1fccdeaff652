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

// LoadIndex reads all index files, as repo.Repo.LoadIndex describes. It fails if the folder
// of packs is missing.
func (r *Store) LoadIndex(ctx context.Context) error {
	load := r.loadIndex
	if r.Options.Distant {
		load = r.trustIndex
	}
	if err := load(ctx, true); err != nil || len(r.Index.Packs()) > 0 {
		return err
	}
	return r.MustHaveFolder(ctx, layout.PacksDir)
}

// LoadListed is like LoadIndex, but if no index file is damaged, it leaves out the packs
// that none lists. It is for callers that decide which packs are needed, or that repair
// the index.
func (r *Store) LoadListed(ctx context.Context) error {
	return r.loadIndex(ctx, false)
}

// trustIndex loads the index without listing the packs, unless an index file is damaged:
// a folder of packs can be large, and the store far away. So it does not find out that
// packs or index files are missing.
func (r *Store) trustIndex(ctx context.Context, all bool) error {
	lists, err := r.retiring(ctx)
	if err != nil {
		return err
	}
	x, err := r.ReadIndex(ctx, nil)
	if err != nil {
		return err
	}
	if len(x.Damage) > 0 { // or another process has replaced an index file meanwhile
		return r.loadIndex(ctx, all)
	}
	return r.use(ctx, x, lists)
}

// retiring reads the prune lists. It must be called before the index is read: if this
// process holds a lock, the packs of a list that is written later are not removed until
// this process has read that list. Lists that cannot be read are passed over, as if this
// process had not seen them yet.
func (r *Store) retiring(ctx context.Context) ([]PruneList, error) {
	lists, err := r.PruneLists(ctx)
	if err = Judge(ctx, r.Backend, layout.PrunesDir, err); err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	return lists, nil
}

func (r *Store) loadIndex(ctx context.Context, all bool) error {
	lists, err := r.retiring(ctx)
	if err != nil {
		return err
	}
	retired := map[layout.FileID]bool{}
	for _, l := range lists {
		for _, id := range l.Packs {
			retired[id] = true
		}
	}
	x, err := r.settledIndex(ctx, nil)
	if err != nil {
		return err
	}
	// A pack on a prune list may be in no index file on purpose.
	inNone := x.packsInNone(retired)
	if all && len(inNone) > 0 {
		// Perhaps the index file of these packs was stored too late to be read. Leave out
		// the packs that were stored since then: their index file may follow.
		before := inNone
		if x, err = r.settledIndex(ctx, x.missing); err != nil {
			return err
		}
		inNone = x.packsInNone(retired)
		maps.DeleteFunc(inNone, func(id pack.ID, _ bool) bool { return !before[id] })
	}
	missing := slices.SortedFunc(maps.Keys(x.missing), func(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) })
	resized := map[pack.ID]int64{}
	for _, p := range x.Packs() {
		if size := x.sizes[p.ID]; size != p.Size {
			x.Retire(p.ID) // its chunks are still read as far as possible, but new snapshots do not rely on them
			resized[p.ID] = size
		}
	}
	unlisted := map[pack.ID]bool{}
	switch {
	case len(x.Damage) > 0:
		if _, err := r.IndexFromPacks(ctx, x.Index, nil); err != nil {
			return fmt.Errorf("read pack headers instead of a damaged index: %w", err)
		}
	case all && len(inNone) > 0:
		added, err := r.IndexFromPacks(ctx, x.Index, inNone)
		if err != nil {
			return fmt.Errorf("read the headers of packs that no index file lists: %w", err)
		}
		for _, id := range added {
			x.Retire(id) // a prune may remove it, unless a snapshot needs it
			unlisted[id] = true
		}
	}
	r.Missing, r.resized, r.unlisted = missing, resized, unlisted
	return r.use(ctx, x, lists)
}

// use makes the index that was read that of the store, and retires the packs of prune lists.
func (r *Store) use(ctx context.Context, x *IndexFiles, lists []PruneList) error {
	var seen []layout.FileID
	r.RetiredIndexed, r.Retired = map[pack.ID]bool{}, map[layout.FileID]bool{}
	for _, l := range lists {
		seen = append(seen, l.ID)
		for _, id := range l.Packs {
			r.Retired[id] = true
			if _, listed := x.Pack(pack.ID(id)); listed {
				x.Retire(pack.ID(id))
				r.RetiredIndexed[pack.ID(id)] = true
			}
		}
	}
	x.Compact()
	r.Index, r.DamagedIndex = x.Index, x.Damage
	r.Cache = newBlockCache(r.Options.Cache) // the old cache has blocks of the old index
	if r.Guard == nil {
		return nil
	}
	return r.Guard.See(ctx, seen)
}

// settledIndex reads the index files and leaves out packs that do not exist.
//
// While it reads, other processes may replace index files and remove packs. So it
// reads again until two readings in a row find the same packs missing, and the second
// finds no further index file missing. lost are the packs that an earlier call found
// missing.
func (r *Store) settledIndex(ctx context.Context, lost map[pack.ID]bool) (*IndexFiles, error) {
	var gone []string // index files missing in the last reading
	for {
		x, err := r.ReadIndex(ctx, lost)
		if err != nil {
			return nil, err
		}
		// List packs after reading the index, since packs are stored before the index
		// file that lists them.
		x.sizes, err = r.ListPacks(ctx)
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		settled := true
		for _, id := range x.without {
			if _, ok := x.sizes[id]; ok {
				settled = false
			} else {
				x.missing[id] = true
			}
		}
		for _, p := range x.Packs() {
			if _, ok := x.sizes[p.ID]; !ok {
				settled, x.missing[p.ID] = false, true
			}
		}
		for _, name := range x.vanished {
			settled = settled && slices.Contains(gone, name)
		}
		if settled {
			return x, nil
		}
		lost, gone = x.missing, x.vanished
	}
}

// IndexFiles is the result of one reading of the index files.
type IndexFiles struct {
	*index.Index
	Damage   []error
	vanished []string          // files that disappeared since they were listed; Damage has them, too
	without  []pack.ID         // listed packs that were left out
	missing  map[pack.ID]bool  // listed packs that do not exist
	sizes    map[pack.ID]int64 // of all packs that exist
}

// packsInNone returns the packs that exist, are in no index file and not in without.
func (x *IndexFiles) packsInNone(without map[layout.FileID]bool) map[pack.ID]bool {
	inNone := map[pack.ID]bool{}
	for id := range x.sizes {
		if _, listed := x.Pack(id); !listed && !without[layout.FileID(id)] {
			inNone[id] = true
		}
	}
	return inNone
}

// ReadIndex reads all index files. It leaves out the packs in without. If two files describe a
// pack differently, the second counts as damaged.
func (r *Store) ReadIndex(ctx context.Context, without map[pack.ID]bool) (*IndexFiles, error) {
	x := &IndexFiles{Index: index.New(), missing: map[pack.ID]bool{}}
	var differs *pack.ID // a pack of the present file
	add := func(id pack.ID, size int64, h pack.Header) {
		switch {
		case without[id]:
			x.without = append(x.without, id)
		case !x.Agrees(id, size, &h):
			differs = &id
		default:
			x.Add(id, size, h)
		}
	}
	var files []backend.Info
	err := List(ctx, r.Backend, layout.IndexDir, func(f backend.Info) error {
		files = append(files, f)
		return nil
	})
	if err == nil {
		err = r.readAhead(ctx, files, index.MaxFileSize, func(name string, b []byte, err error) error {
			if err == nil {
				differs = nil
				if err = index.OpenFile(b, r.IndexSealer, add); err != nil {
					err = &DamageError{name, err}
				} else if differs != nil {
					err = Disagreement(name, *differs)
				}
			}
			if errors.Is(err, ErrDamaged) {
				x.Damage = append(x.Damage, err)
				if errors.Is(err, backend.ErrNotExist) {
					x.vanished = append(x.vanished, name)
				}
				return nil
			}
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return x, nil
}

// Disagreement returns the error for an index file that describes a pack otherwise than another
// one. Whoever has the key and may only add files can cause that, and nothing tells which of
// the two is right.
func Disagreement(name string, id pack.ID) error {
	return &DamageError{name, fmt.Errorf("it and another index file describe %s differently; `snap repair index` reads what the pack says", layout.PackName(id))}
}

// ListPacks returns the packs that exist, with their sizes.
func (r *Store) ListPacks(ctx context.Context) (map[pack.ID]int64, error) {
	exists := map[pack.ID]int64{}
	err := r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		if id, err := layout.ParseFileID(f.Name); err == nil {
			exists[pack.ID(id)] = f.Size
		}
		return nil
	})
	return exists, err
}

// IsUnlisted reports whether the loaded index has a pack only because LoadIndex read its
// header: no index file lists it, and none is damaged.
func (r *Store) IsUnlisted(id pack.ID) bool { return r.unlisted[id] }

// OnlyUnlisted reports whether IsUnlisted is true for every pack that has a chunk. If a
// snapshot needs such a chunk, the index file of one of these packs is missing. One
// unlisted pack proves nothing: a backup stores a chunk again if a prune may remove its
// pack, and does not list the new pack before the backup ends.
func (r *Store) OnlyUnlisted(id chunk.ID) bool {
	loc, ok := r.Index.Lookup(id)
	if !ok || !r.unlisted[loc.Pack] {
		return false
	}
	return !slices.ContainsFunc(r.Index.Copies(id), func(l index.Location) bool { return !r.unlisted[l.Pack] })
}

// HasUnlisted reports whether IsUnlisted is true for some pack.
func (r *Store) HasUnlisted() bool { return len(r.unlisted) > 0 }

// IndexDamage returns the index files that LoadIndex found damaged, and the packs that
// are missing or have another size than they should. Given the roots of snapshots, it also
// finds out that an index file is missing: no index file lists a pack with a root.
func (r *Store) IndexDamage(roots ...chunk.ID) []error {
	damage := slices.Clone(r.DamagedIndex)
	if slices.ContainsFunc(roots, r.OnlyUnlisted) {
		damage = append(damage, LostIndex(len(r.unlisted)))
	}
	for _, id := range r.Missing {
		damage = append(damage, &DamageError{layout.PackName(id), errors.New("it is missing")})
	}
	for _, p := range r.Index.Packs() {
		if size, ok := r.resized[p.ID]; ok {
			damage = append(damage, SizeDamage(p, size))
		}
	}
	return damage
}

// LostIndex returns the error for packs that snapshots need and no index file lists.
func LostIndex(packs int) error {
	return &DamageError{layout.IndexDir, fmt.Errorf("an index file is missing: no index file lists %d packs that snapshots need; their headers are read instead", packs)}
}

// SizeDamage returns the error for a pack that has another size than it should.
func SizeDamage(p index.Pack, size int64) error {
	return &DamageError{layout.PackName(p.ID), fmt.Errorf("it has %d bytes, but should have %d", size, p.Size)}
}

// Unsafe returns damage if new snapshots must not rely on a chunk: it is in no pack, or it
// needs a pack that has a wrong size or will be removed.
func (r *Store) Unsafe(id chunk.ID) error {
	if r.Index.Reusable(id) {
		return nil
	}
	loc, ok := r.Index.Lookup(id)
	if !ok {
		return r.UnknownChunk(id)
	}
	if size, ok := r.resized[loc.Pack]; ok {
		p, _ := r.Index.Pack(loc.Pack)
		return SizeDamage(p, size)
	}
	return &DamageError{layout.PackName(loc.Pack), fmt.Errorf("chunk %s needs a pack that will be removed or has a wrong size", id.Short())}
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

// IndexFromPacks adds the packs that the index lacks, from their headers, and returns
// their IDs. If only is not nil, it adds only packs in that set. It leaves out packs whose
// header is damaged: their chunks count as missing.
func (r *Store) IndexFromPacks(ctx context.Context, x *index.Index, only map[pack.ID]bool) (added []pack.ID, err error) {
	err = r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil
		}
		if _, known := x.Pack(pack.ID(id)); known || only != nil && !only[pack.ID(id)] {
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
		added = append(added, pack.ID(id))
		return nil
	})
	return added, err
}

// ReadHeader reads the header of a pack file.
func (r *Store) ReadHeader(ctx context.Context, f backend.Info) (pack.Header, error) {
	h, err := pack.ReadHeader(readerAt{ctx, r.Backend, f.Name}, f.Size, r.PackSealer)
	if errors.Is(err, pack.ErrDamaged) {
		return pack.Header{}, &DamageError{f.Name, err}
	}
	return h, Judge(ctx, r.Backend, f.Name, err)
}
