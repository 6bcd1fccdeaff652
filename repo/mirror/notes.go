package mirror

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// A mirror has notes of seven kinds. The first lists the snapshots and certificates that
// were copied from the source. If the source does not have one of them, the source has
// removed it. One that is not listed was stored in the mirror by another program, and must
// stay. The second kind lists the files that a run is about to copy. After an interruption
// they show the next run that the source has not lost these files. The third kind says
// which of them are index files. The fourth kind has, for each file that has left the
// source, the number of runs that did not find it there (kept.go). The fifth kind says
// that no run had the key yet, the sixth lists files that runs without the key have
// copied since. The seventh lists files that have left the source and that a run with the
// key has reported as gone. Runs without the key cannot report files by name, so they do
// not add to this note.
//
//	mirrored/HASH   magic "snapmi01", then the IDs of snapshots and certificates, ascending
//	                magic "snapml01", then the IDs of removable files, ascending
//	                magic "snapmx01", then the IDs of those that are index files, ascending
//	                magic "snapmk01", then IDs, ascending, each with a byte: the runs
//	                magic "snapmu01"
//	                magic "snapmw01", then the IDs of files that the key has to judge, ascending
//	                magic "snapmn01", then the IDs of files that runs with the key have reported as gone, ascending
const (
	copiedMagic    = "snapmi01"
	removableMagic = "snapml01"
	indexMagic     = "snapmx01"
	keptMagic      = "snapmk01"
	unjudgedMagic  = "snapmu01"
	waitingMagic   = "snapmw01"
	namedMagic     = "snapmn01"
	maxNote        = 64 << 20
)

type id = [32]byte

// notes has the content of all notes of a target.
type notes struct {
	copied    map[id]bool // snapshots and certificates that were copied from the source
	removable map[id]bool // files that may be removed without further evidence
	indexes   map[id]bool // index files that an interrupted run was about to copy
	kept      map[id]int  // files that have left the source, and how many runs did not find them there
	named     map[id]bool // files that have left the source, and that a run with the key has reported as gone
	waiting   map[id]bool // files that were copied without the key
	unjudged  string      // name of the note that says that no run had the key; "" if there is none
	damaged   bool        // there is a note that cannot be used
	waits     []string    // names of the notes of waiting files
	files     []string    // names of all notes
	unread    []string    // names of the notes that could not be read
	unreadErr error       // why, for the last of them
	removals  []string    // names of the notes of the second and third kind
	keptFiles []string    // names of the notes of the fourth and seventh kind
	copies    string      // name of the note that lists what was copied; "" if there is none or more than one
}

// readNotes reads the notes of a target. It passes over notes that are damaged or cannot be
// read. Then fewer files may be removed, and the key has to judge the whole target, since
// the note may have listed files that wait for it.
func readNotes(ctx context.Context, target backend.Backend) (notes, error) {
	n := notes{copied: map[id]bool{}, removable: map[id]bool{}, indexes: map[id]bool{}, kept: map[id]int{}, named: map[id]bool{}, waiting: map[id]bool{}}
	lists, namings, named := 0, 0, map[id]int{}
	err := target.List(ctx, layout.MirroredDir, func(f backend.Info) error {
		hash, ok := hashOf(f.Name)
		if !ok {
			return nil
		}
		b, err := backend.ReadAll(ctx, target, f.Name, maxNote)
		switch {
		case errors.Is(err, backend.ErrNotExist):
			return nil
		case errors.Is(err, backend.ErrTooLarge):
			b = nil
		case backend.Unreadable(ctx, target, err) && !backend.IsDenied(err):
			n.damaged, n.unreadErr = true, err
			n.unread = append(n.unread, f.Name)
			return nil // it may be good, so a run without the key leaves it
		case err != nil:
			return err
		}
		n.files = append(n.files, f.Name)
		if blake.New().Sum(b) != hash {
			n.damaged = true
			return nil
		}
		magic, ids, counts := parseNote(b)
		for i, id := range ids {
			switch magic {
			case copiedMagic:
				n.copied[id] = true
			case removableMagic:
				n.removable[id] = true
			case indexMagic:
				n.indexes[id] = true
			case waitingMagic:
				n.waiting[id] = true
			case namedMagic:
				named[id]++
			case keptMagic:
				// An interrupted run leaves two notes. The lower count keeps the file
				// longer.
				if old := n.kept[id]; old == 0 || counts[i] < old {
					n.kept[id] = counts[i]
				}
			}
		}
		switch magic {
		case copiedMagic:
			n.copies = f.Name
			lists++
		case removableMagic, indexMagic:
			n.removals = append(n.removals, f.Name)
		case keptMagic:
			n.keptFiles = append(n.keptFiles, f.Name)
		case namedMagic:
			n.keptFiles = append(n.keptFiles, f.Name)
			namings++
		case unjudgedMagic:
			n.unjudged = f.Name
		case waitingMagic:
			n.waits = append(n.waits, f.Name)
		}
		return nil
	})
	if lists > 1 {
		n.copies = "" // an interrupted run left two, and each may lack what the other lists
	}
	// An interrupted run leaves two notes. What only one of them lists is reported again.
	for id, count := range named {
		if count == namings {
			n.named[id] = true
		}
	}
	return n, err
}

// IsMirror reports whether a store is the target of a mirror: it has a note of one.
func IsMirror(ctx context.Context, be backend.Backend) (bool, error) {
	found := errors.New("found")
	err := be.List(ctx, layout.MirroredDir, func(f backend.Info) error {
		if _, ok := hashOf(f.Name); ok {
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}

// parseNote returns the magic and the IDs of a note, and for a note of kept files the
// count of each. The magic is "" if b is not a note.
func parseNote(b []byte) (magic string, ids []id, counts []int) {
	if len(b) < 8 {
		return "", nil, nil
	}
	magic = string(b[:8])
	entry := 32
	switch magic {
	case copiedMagic, removableMagic, indexMagic, unjudgedMagic, waitingMagic, namedMagic:
	case keptMagic:
		entry = 33
	default:
		return "", nil, nil
	}
	if (len(b)-8)%entry != 0 {
		return "", nil, nil
	}
	ids = make([]id, 0, len(b)/entry)
	for one := range slices.Chunk(b[8:], entry) {
		next := id(one[:32])
		if n := len(ids); n > 0 && slices.Compare(ids[n-1][:], next[:]) >= 0 {
			return "", nil, nil
		}
		ids = append(ids, next)
		if magic == keptMagic {
			if one[32] == 0 {
				return "", nil, nil
			}
			counts = append(counts, int(one[32]))
		}
	}
	return magic, ids, counts
}

// listNote returns the bytes of a note that lists IDs.
func listNote(magic string, set map[id]bool) []byte {
	b := []byte(magic)
	for _, id := range slices.SortedFunc(maps.Keys(set), compareIDs) {
		b = append(b, id[:]...)
	}
	return b
}

// keptNote returns the bytes of a note that counts runs, from 1 to 255 for each ID.
func keptNote(counts map[id]int) []byte {
	b := []byte(keptMagic)
	for _, id := range slices.SortedFunc(maps.Keys(counts), compareIDs) {
		b = append(append(b, id[:]...), byte(counts[id]))
	}
	return b
}

func compareIDs(a, b id) int { return slices.Compare(a[:], b[:]) }

// putNote stores a note and returns its name.
func putNote(ctx context.Context, target backend.Backend, b []byte) (string, error) {
	if len(b) > maxNote {
		return "", fmt.Errorf("a note of %d bytes is too long", len(b))
	}
	hash := blake.New().Sum(b)
	name := layout.MirroredDir + hex.EncodeToString(hash[:])
	old, err := backend.ReadAll(ctx, target, name, maxNote)
	switch {
	case err == nil && bytes.Equal(old, b):
		return name, nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	case !errors.Is(err, backend.ErrNotExist): // a crash left a part of the note
		if err := target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return "", err
		}
	}
	if err := target.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
		return "", err
	}
	return name, nil
}

// noteCopied notes the snapshots and certificates that are about to be copied, together
// with those that were copied before. It updates r.notes.
func (r *round) noteCopied(ctx context.Context) error {
	copied, changed := map[id]bool{}, r.notes.copies == ""
	for name := range noted(r.src[records]) {
		if r.excluded[name] {
			continue
		}
		hash, _ := hashOf(name)
		copied[hash] = true
		changed = changed || !r.notes.copied[hash]
	}
	for name := range noted(r.dst[records]) {
		if hash, _ := hashOf(name); r.notes.copied[hash] || r.opts.AcceptRemovals {
			copied[hash] = true
		}
	}
	if !changed {
		return nil
	}
	name, err := putNote(ctx, r.target, listNote(copiedMagic, copied))
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
	return m.noteFiles(ctx, removableMagic, names)
}

// noteFiles stores a note that lists files, if there are any.
func (m *mirrorer) noteFiles(ctx context.Context, magic string, names iter.Seq[string]) error {
	listed := map[id]bool{}
	for name := range names {
		if hash, ok := hashOf(name); ok {
			listed[hash] = true
		}
	}
	if len(listed) == 0 {
		return nil
	}
	_, err := putNote(ctx, m.target, listNote(magic, listed))
	return err
}

// unmarkRemovable removes the packs and index files of the source from the notes of
// removable files, since the records that are about to be copied may need them.
// Files that the source does not have remain noted.
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
		if remaining, err = putNote(ctx, r.target, listNote(removableMagic, now.removable)); err != nil {
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

// removeNotes removes the notes that the next run does not need.
func (r *round) removeNotes(ctx context.Context) error {
	now, err := readNotes(ctx, r.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	gone, keep := now.files, slices.Concat(now.keptFiles, now.waits, []string{r.notes.copies, now.unjudged})
	if r.opts.Judge != nil {
		gone = append(gone, now.unread...) // the key has judged everything
	} else {
		keep = append(keep, r.notes.unread...) // this run does not know what they say
	}
	for _, name := range gone {
		if slices.Contains(keep, name) {
			continue
		}
		if err := r.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}
