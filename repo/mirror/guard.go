package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// RefusedError says why a copy would do harm and what to do. It matches ErrRefused.
type RefusedError struct{ Why, Do string }

// Hint says what to do.
func (e *RefusedError) Hint() string { return e.Do }

func (e *RefusedError) Error() string { return fmt.Sprintf("%v: %s", ErrRefused, e.Why) }

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

const (
	hintLost     = "nothing was changed; run \"snap check\" on the source, and if it has lost files, copy them back from the mirror"
	hintRemovals = "nothing was changed; if you removed these yourself, run it again with --accept-removals; otherwise the source has lost them: copy them back from the mirror"
	hintPassword = hintRemovals + ". With the password snap can tell whether a snapshot needs them"
)

// guard returns a *RefusedError if the target is not a copy of the source, or if the
// source seems to have lost files. In the second case the mirror must keep these files.
// Without a key, guard can only compare the missing files with those that a prune
// removes.
func (m *mirrorer) guard(ctx context.Context, src, dst *listing, n notes) error {
	if err := m.sameRepository(ctx, src, dst); err != nil {
		return err
	}
	snaps := under(src[records], layout.SnapshotsDir)
	switch {
	case len(src[keys]) == 0:
		return &RefusedError{"the source has no key slot, so its copy could not be opened", hintLost}
	case len(src[packs]) > 0 && len(src[indexes]) == 0:
		return &RefusedError{fmt.Sprintf("the source has %d packs and no index file", len(src[packs])), hintLost}
	case len(snaps) > 0 && len(src[packs]) == 0:
		return &RefusedError{fmt.Sprintf("the source has %d snapshots and no packs", len(snaps)), hintLost}
	}
	if m.opts.AcceptRemovals {
		return nil
	}
	if err := guardSnapshots(snaps, under(dst[records], layout.SnapshotsDir), n); err != nil {
		return err
	}
	lostPacks, lostIndexes := without(dst[packs], src[packs]), without(dst[indexes], src[indexes])
	if m.opts.VerifySnapshots != nil {
		// With the key, the snapshots themselves can be checked, so no other evidence
		// is needed.
		if len(lostPacks)+len(lostIndexes) == 0 {
			return nil
		}
		if err := m.opts.VerifySnapshots(ctx); err != nil {
			return fmt.Errorf("%w: %w", &RefusedError{fmt.Sprintf("%d packs and %d index files of the target are gone from the source, and its snapshots are not complete", len(lostPacks), len(lostIndexes)), hintLost}, err)
		}
		return nil
	}
	if len(lostPacks) > 0 && len(lostIndexes) == 0 && len(n.removable) > 0 && !n.pruned(src, dst) {
		return unlistedLoss(len(lostPacks))
	}
	lostPacks, lostIndexes = n.unexplained(lostPacks), n.unexplained(lostIndexes)
	if len(lostPacks)+len(lostIndexes) == 0 {
		return nil
	}
	if sourceBytes, targetBytes := sum(src[packs]), sum(dst[packs]); sourceBytes*2 < targetBytes {
		return &RefusedError{fmt.Sprintf("the source has packs of %d bytes, the target of %d: more than half is gone", sourceBytes, targetBytes),
			hintPassword}
	}
	switch {
	case len(lostPacks) > 0 && len(lostIndexes) == 0 && len(dst[indexes]) > 0:
		return unlistedLoss(len(lostPacks))
	case len(lostIndexes) > 0 && len(lostPacks) == 0 && len(without(src[indexes], dst[indexes])) == 0:
		return &RefusedError{fmt.Sprintf("%d index files are gone from the source, and nothing replaced them; a prune does not do that", len(lostIndexes)),
			hintPassword}
	}
	return nil
}

// unlistedLoss is the error for a source that lacks packs but no index files.
// Before a prune removes a pack, it replaces the index files that list the pack.
// Packs that an interrupted process has left are an exception: no index file
// lists them.
func unlistedLoss(packs int) error {
	return &RefusedError{fmt.Sprintf("%d packs are gone from the source, but all index files that could list them still exist; a prune does not do that", packs),
		hintPassword}
}

// pruned reports whether a file that an interrupted run noted is now neither in the
// source nor among the target's packs. Since a run copies packs before index files,
// this file is then an index file that a prune has replaced.
func (n *notes) pruned(src, dst *listing) bool {
	present := map[id]bool{}
	for _, files := range []map[string]int64{src[packs], src[indexes], dst[packs]} {
		for name := range files {
			hash, _ := hashOf(name)
			present[hash] = true
		}
	}
	for hash := range n.removable {
		if !present[hash] {
			return true
		}
	}
	return false
}

// unexplained deletes from files all that the notes list as removable. It returns
// files, which then has the others.
func (n *notes) unexplained(files map[string]int64) map[string]int64 {
	maps.DeleteFunc(files, func(name string, _ int64) bool {
		hash, _ := hashOf(name)
		return n.removable[hash]
	})
	return files
}

// guardSnapshots checks the snapshots that are missing in the source.
func guardSnapshots(src, dst map[string]int64, n notes) error {
	missing := n.unexplained(without(dst, src))
	foreign := 0
	for name := range missing {
		if hash, _ := hashOf(name); !n.copied[hash] {
			foreign++
		}
	}
	switch {
	case foreign > 0:
		return &RefusedError{fmt.Sprintf("the target has %d snapshots that are not in the source and were not copied from it: another program stored them in the mirror, or it was not made by this command", foreign),
			"nothing was changed; to keep them, use the target as a separate repository and make another mirror; to remove them, run it again with --accept-removals"}
	case len(missing) > 0 && 2*len(src) < len(dst):
		return &RefusedError{fmt.Sprintf("the source has %d snapshots, the target %d: more than half is gone", len(src), len(dst)), hintRemovals}
	}
	return nil
}

// sameRepository returns a *RefusedError unless the target is empty or a copy of the
// source.
func (m *mirrorer) sameRepository(ctx context.Context, src, dst *listing) error {
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
				"choose another target; \"snap copy\" copies into another repository. If the target is a mirror of this repository with a damaged config file, remove that file and run it again"}
		}
		return nil
	}
	// Without config the other files decide: their names are hashes of partly
	// random bytes, so two repositories never have a file in common.
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
		return &RefusedError{"the target has files of a repository, but no config file and no file of this repository", "choose another target"}
	}
	return nil
}

// Shares reports whether a target without config has a file of the source, or a note
// that lists one. Run stores such a note before it copies the first pack. Callers use
// it to check a folder before they write to it.
func Shares(ctx context.Context, source, target backend.Backend) (bool, error) {
	src, err := list(ctx, source)
	if err != nil {
		return false, err
	}
	dst, err := list(ctx, target)
	if err != nil {
		return false, err
	}
	n, err := readNotes(ctx, target)
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
			if hash, ok := hashOf(name); ok && n.removable[hash] {
				return true, nil
			}
		}
	}
	return false, nil
}

// sameConfig reports whether two stores have the same config file.
func sameConfig(ctx context.Context, a, b backend.Backend) (bool, error) {
	x, err := backend.ReadAll(ctx, a, layout.ConfigName, layout.MaxConfigSize)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	y, err := backend.ReadAll(ctx, b, layout.ConfigName, layout.MaxConfigSize)
	if errors.Is(err, backend.ErrTooLarge) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("target: %w", err)
	}
	return bytes.Equal(x, y), nil
}
