package mirror

import (
	"context"
	"fmt"
	"maps"

	"github.com/snap-backup/snap/repo/backend"
)

// RefusedError says why a copy would do harm, and what to do. It is ErrRefused.
type RefusedError struct{ Why, Do string }

// Hint says what to do.
func (e *RefusedError) Hint() string { return e.Do }

func (e *RefusedError) Error() string { return fmt.Sprintf("%v: %s", ErrRefused, e.Why) }

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

const (
	hintLost     = "look at the source first: \"snap check\"; if it has lost files, copy them back from the mirror; nothing was changed"
	hintRemovals = "if you removed these yourself, run it again with --accept-removals; otherwise the source has lost them: copy them back from the mirror. Nothing was changed"
)

// guard refuses to go on where the target is no copy of the source, and where
// the source looks as if it had lost files: a mirror that follows then is no
// copy any more. Without a key it goes by what a repository does whenever it
// removes something.
func (m *mirroring) guard(ctx context.Context, src, dst *listing, mem memory) error {
	if err := m.sameRepository(ctx, src, dst); err != nil {
		return err
	}
	snaps := under(src[records], snapshots)
	switch {
	case len(src[keys]) == 0:
		return &RefusedError{"the source has no key slot: nobody could open its copy", hintLost}
	case len(src[packs]) > 0 && len(src[indexes]) == 0:
		return &RefusedError{fmt.Sprintf("the source has %d packs and no index file", len(src[packs])), hintLost}
	case len(snaps) > 0 && len(src[packs]) == 0:
		return &RefusedError{fmt.Sprintf("the source has %d snapshots and no packs", len(snaps)), hintLost}
	}
	if m.opts.AcceptRemovals {
		return nil
	}
	if err := guardSnapshots(snaps, under(dst[records], snapshots), mem); err != nil {
		return err
	}
	lostPacks, lostIndexes := without(dst[packs], src[packs]), without(dst[indexes], src[indexes])
	if m.opts.VerifySnapshots != nil {
		// The key knows better than what the target has noted.
		if len(lostPacks)+len(lostIndexes) == 0 {
			return nil
		}
		if err := m.opts.VerifySnapshots(ctx); err != nil {
			return fmt.Errorf("%w: %w", &RefusedError{fmt.Sprintf("%d packs and %d index files of the target are gone from the source, and its snapshots are not whole", len(lostPacks), len(lostIndexes)), hintLost}, err)
		}
		return nil
	}
	if len(lostPacks) > 0 && len(lostIndexes) == 0 && len(mem.loose) > 0 && !mem.vanished(src, dst) {
		return unlistedLoss(len(lostPacks))
	}
	lostPacks, lostIndexes = mem.news(lostPacks), mem.news(lostIndexes)
	if len(lostPacks)+len(lostIndexes) == 0 {
		return nil
	}
	if have, had := sum(src[packs]), sum(dst[packs]); have*2 < had {
		return &RefusedError{fmt.Sprintf("the source has packs of %d bytes, the target of %d: more than half is gone", have, had),
			hintRemovals + ". With the password it can be told whether a snapshot lacks anything"}
	}
	switch {
	case len(lostPacks) > 0 && len(lostIndexes) == 0 && len(dst[indexes]) > 0:
		return unlistedLoss(len(lostPacks))
	case len(lostIndexes) > 0 && len(lostPacks) == 0 && len(without(src[indexes], dst[indexes])) == 0:
		return &RefusedError{fmt.Sprintf("%d index files are gone from the source, and nothing has taken their place; a prune does not do that", len(lostIndexes)),
			hintRemovals + ". With the password it can be told whether a snapshot lacks anything"}
	}
	return nil
}

// unlistedLoss is the refusal to follow a source that lacks packs and no index
// file. A prune replaces the index files that list a pack before it removes the
// pack. Only what a killed run left goes without.
func unlistedLoss(packs int) error {
	return &RefusedError{fmt.Sprintf("%d packs are gone from the source, and all index files that could list them are still there; a prune does not do that", packs),
		hintRemovals + ". With the password it can be told whether a snapshot lacks anything"}
}

// vanished reports whether the source has given up a file that was noted and has
// not come to the target as a pack: an index file, if what was noted of packs did
// come. It is what a run that was cut off has noted, so this tells a prune from a
// loss as the target's own index files do otherwise.
func (mem *memory) vanished(src, dst *listing) bool {
	here := map[id]bool{}
	for _, files := range []map[string]int64{src[packs], src[indexes], dst[packs]} {
		for name := range files {
			hash, _ := hashOf(name)
			here[hash] = true
		}
	}
	for hash := range mem.loose {
		if !here[hash] {
			return true
		}
	}
	return false
}

// news returns the files that need evidence to go.
func (mem *memory) news(files map[string]int64) map[string]int64 {
	maps.DeleteFunc(files, func(name string, _ int64) bool {
		hash, _ := hashOf(name)
		return mem.loose[hash]
	})
	return files
}

// guardSnapshots looks at the snapshots that are gone from the source.
func guardSnapshots(src, dst map[string]int64, mem memory) error {
	gone := mem.news(without(dst, src))
	strangers := 0
	for name := range gone {
		if hash, _ := hashOf(name); !mem.came[hash] {
			strangers++
		}
	}
	switch {
	case strangers > 0:
		return &RefusedError{fmt.Sprintf("the target has %d snapshots that are not in the source and did not come from there: somebody has stored into the mirror, or it was not made by this command", strangers),
			"to keep them, use the target as a repository of its own and make another mirror; to remove them, run it again with --accept-removals; nothing was changed"}
	case len(gone) > 0 && 2*len(src) < len(dst):
		return &RefusedError{fmt.Sprintf("the source has %d snapshots, the target %d: more than half is gone", len(src), len(dst)), hintRemovals}
	}
	return nil
}

// sameRepository makes sure that the target is empty or a copy of the source.
func (m *mirroring) sameRepository(ctx context.Context, src, dst *listing) error {
	if len(src[config]) == 0 {
		return &RefusedError{"the source has no config file", hintLost}
	}
	if len(dst[config]) > 0 {
		same, err := sameConfig(ctx, m.source, m.target)
		if err != nil {
			return err
		}
		if !same {
			return &RefusedError{"the target is another repository: its config file is not the source's",
				"choose another target. If it is a mirror of this repository whose config is damaged, remove that file and run it again; to copy into another repository there is \"snap copy\""}
		}
		return nil
	}
	// Without config, other files tell: their names are hashes of bytes that
	// are random in part, so no two repositories share any.
	files := 0
	for c := range classes {
		for name := range dst[c] {
			if src.has(name) {
				return nil
			}
			files++
		}
	}
	if files > 0 {
		return &RefusedError{"the target has files of a repository, but no config file and nothing of this repository", "choose another target"}
	}
	return nil
}

// Shares reports whether a target without config holds files of the source, or
// the note that a mirror of it writes before the first of them. It is for callers that look at what a folder holds before they use it.
func Shares(ctx context.Context, source, target backend.Backend) (bool, error) {
	src, err := list(ctx, source)
	if err != nil {
		return false, err
	}
	dst, err := list(ctx, target)
	if err != nil {
		return false, err
	}
	mem, err := readMemory(ctx, target)
	if err != nil {
		return false, err
	}
	for c := range classes {
		for name := range dst[c] {
			if src.has(name) {
				return true, nil
			}
		}
		for name := range src[c] {
			if hash, ok := hashOf(name); ok && mem.loose[hash] {
				return true, nil
			}
		}
	}
	return false, nil
}
