package mirror

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// A mirror has notes of two kinds. The first lists the snapshots that were copied from
// the source. If the source does not have one of them, the source has removed it, and
// it may be removed from the mirror. A snapshot that is not listed was stored in the
// mirror by another program, and must stay. The second kind lists the files that a run
// is about to copy or to remove. After an interruption they show the next run that the
// source has not lost these files.
//
//	mirrored/HASH   magic "snapmi01", then the IDs of snapshots, ascending
//	                magic "snapml01", then the IDs of removable files, ascending
const (
	copiedMagic    = "snapmi01"
	removableMagic = "snapml01"
	maxNote        = 64 << 20
)

type id = [32]byte

// notes are the notes of a target.
type notes struct {
	copied    map[id]bool // snapshots that were copied from the source
	removable map[id]bool // files that may be removed without further evidence
	files     []string    // the files of all notes
	removals  []string    // the files of notes that list removable files
	copies    string      // the file of the note that lists all copied snapshots; "" if there are several such notes
}

// readNotes reads the notes of a target. It ignores damaged notes, which only means
// that fewer files may be removed.
func readNotes(ctx context.Context, target backend.Backend) (notes, error) {
	n := notes{copied: map[id]bool{}, removable: map[id]bool{}}
	lists := 0
	err := target.List(ctx, layout.MirroredDir, func(f backend.Info) error {
		hash, ok := hashOf(f.Name)
		if !ok {
			return nil
		}
		b, err := backend.ReadAll(ctx, target, f.Name, maxNote)
		switch {
		case errors.Is(err, backend.ErrNotExist):
			return nil
		case errors.Is(err, backend.ErrTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
			b = nil
		case err != nil:
			return err
		}
		n.files = append(n.files, f.Name)
		if blake.New().Sum(b) != hash {
			return nil
		}
		magic, ids := parseNote(b)
		switch magic {
		case copiedMagic:
			n.copies = f.Name
			lists++
			for _, id := range ids {
				n.copied[id] = true
			}
		case removableMagic:
			n.removals = append(n.removals, f.Name)
			for _, id := range ids {
				n.removable[id] = true
			}
		}
		return nil
	})
	if lists > 1 {
		n.copies = "" // an interrupted run left two, and neither lists all snapshots
	}
	return n, err
}

// parseNote returns the magic and the IDs of a note. The magic is "" if b is not a
// note.
func parseNote(b []byte) (magic string, ids []id) {
	if len(b) < 8 || (len(b)-8)%32 != 0 {
		return "", nil
	}
	magic = string(b[:8])
	if magic != copiedMagic && magic != removableMagic {
		return "", nil
	}
	ids = make([]id, 0, len(b)/32)
	for one := range slices.Chunk(b[8:], 32) {
		next := id(one)
		if n := len(ids); n > 0 && slices.Compare(ids[n-1][:], next[:]) >= 0 {
			return "", nil
		}
		ids = append(ids, next)
	}
	return magic, ids
}

// putNote stores a note and returns its name.
func putNote(ctx context.Context, target backend.Backend, magic string, set map[id]bool) (string, error) {
	ids := slices.SortedFunc(maps.Keys(set), func(a, b id) int { return slices.Compare(a[:], b[:]) })
	b := []byte(magic)
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	if len(b) > maxNote {
		return "", fmt.Errorf("%d files are too many for a note", len(ids))
	}
	hash := blake.New().Sum(b)
	name := layout.MirroredDir + hex.EncodeToString(hash[:])
	info, err := target.Stat(ctx, name)
	switch {
	case err == nil && info.Size == int64(len(b)):
		return name, nil
	case err == nil: // cut short by a crash
		if err := target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return "", err
		}
	}
	if err := target.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
		return "", err
	}
	return name, nil
}

// noteSnapshots notes the snapshots that are about to be copied, together with those
// that were copied before. It updates r.notes.
func (r *round) noteSnapshots(ctx context.Context) error {
	copied, changed := map[id]bool{}, r.notes.copies == ""
	for name := range under(r.src[records], layout.SnapshotsDir) {
		hash, _ := hashOf(name)
		copied[hash] = true
		changed = changed || !r.notes.copied[hash]
	}
	for name := range under(r.dst[records], layout.SnapshotsDir) {
		if hash, _ := hashOf(name); r.notes.copied[hash] || r.opts.AcceptRemovals {
			copied[hash] = true
		}
	}
	if !changed {
		return nil
	}
	name, err := putNote(ctx, r.target, copiedMagic, copied)
	if err != nil {
		return err
	}
	r.notes.copies, r.notes.copied = name, copied
	r.notes.files = append(r.notes.files, name)
	return nil
}

// markRemovable notes files that may be removed from the target without further
// evidence.
func (m *mirrorer) markRemovable(ctx context.Context, names iter.Seq[string]) error {
	removable := map[id]bool{}
	for name := range names {
		if hash, ok := hashOf(name); ok {
			removable[hash] = true
		}
	}
	if len(removable) == 0 {
		return nil
	}
	_, err := putNote(ctx, m.target, removableMagic, removable)
	return err
}

// unmarkRemovable removes the packs and index files of the source from the notes of
// removable files, since the records that are about to be copied may need them.
// Files that the source does not have remain noted for removeAll.
func (r *round) unmarkRemovable(ctx context.Context) error {
	now, err := readNotes(ctx, r.target)
	if err != nil || len(now.removals) == 0 {
		return err
	}
	for _, c := range []class{packs, indexes} {
		for name := range r.src[c] {
			hash, _ := hashOf(name)
			delete(now.removable, hash)
		}
	}
	remaining := ""
	if len(now.removable) > 0 {
		if remaining, err = putNote(ctx, r.target, removableMagic, now.removable); err != nil {
			return err
		}
	}
	for _, name := range now.removals {
		if name == remaining {
			continue
		}
		if err := r.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeNotes removes all notes except the list of copied snapshots. It removes
// notes of removable files only if removals is set.
func (m *mirrorer) removeNotes(ctx context.Context, known notes, removals bool) error {
	now, err := readNotes(ctx, m.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for _, name := range now.files {
		if name == known.copies || !removals && slices.Contains(now.removals, name) {
			continue
		}
		if err := m.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}
