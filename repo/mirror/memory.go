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
)

// A mirror remembers which snapshots came to it from the source: one that the
// source does not have was either removed there or stored into the mirror by
// somebody, and only what was removed there may be removed here. And it notes
// what a run is about to copy and to remove, so that what a run that was cut off
// has left is not taken for a loss of the source by the next one.
//
//	mirrored/HASH   magic "snapmi01", then the IDs of snapshots, ascending
//	                magic "snapml01", then the IDs of files under way, ascending
const (
	cameMagic  = "snapmi01"
	looseMagic = "snapml01"
	maxMemory  = 64 << 20
)

type id = [32]byte

// memory is what a target remembers.
type memory struct {
	came  map[id]bool // snapshots
	loose map[id]bool // files that may go without further evidence
	files []string    // that hold it
	marks []string    // those of files that hold loose
	keep  string      // the one that stays; none if what they hold has to be put together
}

// readMemory reads what the target remembers. What cannot be read means
// nothing: the careful side.
func readMemory(ctx context.Context, target backend.Backend) (memory, error) {
	mem := memory{came: map[id]bool{}, loose: map[id]bool{}}
	cames := 0
	err := target.List(ctx, mirrored, func(f backend.Info) error {
		hash, ok := hashOf(f.Name)
		if !ok {
			return nil
		}
		b, err := backend.ReadAll(ctx, target, f.Name, maxMemory)
		switch {
		case errors.Is(err, backend.ErrNotExist):
			return nil
		case errors.Is(err, backend.ErrTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
			b = nil
		case err != nil:
			return err
		}
		mem.files = append(mem.files, f.Name)
		if blake.New().Sum(b) != hash {
			return nil
		}
		magic, ids := parseMemory(b)
		switch magic {
		case cameMagic:
			mem.keep = f.Name
			cames++
			for _, id := range ids {
				mem.came[id] = true
			}
		case looseMagic:
			mem.marks = append(mem.marks, f.Name)
			for _, id := range ids {
				mem.loose[id] = true
			}
		}
		return nil
	})
	if cames > 1 {
		mem.keep = "" // a run that was cut off has left two, and neither has all
	}
	return mem, err
}

// parseMemory returns the magic of a file and its IDs, "" if it is no such file.
func parseMemory(b []byte) (magic string, ids []id) {
	if len(b) < 8 || (len(b)-8)%32 != 0 {
		return "", nil
	}
	magic = string(b[:8])
	if magic != cameMagic && magic != looseMagic {
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

// putMemory stores a file of memory and returns its name.
func putMemory(ctx context.Context, target backend.Backend, magic string, set map[id]bool) (string, error) {
	ids := slices.SortedFunc(maps.Keys(set), func(a, b id) int { return slices.Compare(a[:], b[:]) })
	b := []byte(magic)
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	if len(b) > maxMemory {
		return "", fmt.Errorf("%d files are too many for a mirror", len(ids))
	}
	hash := blake.New().Sum(b)
	name := mirrored + hex.EncodeToString(hash[:])
	info, err := target.Stat(ctx, name)
	switch {
	case err == nil && info.Size == int64(len(b)):
		return name, nil
	case err == nil: // torn
		if err := target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return "", err
		}
	}
	if err := target.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
		return "", err
	}
	return name, nil
}

// remember makes the target remember the snapshots that are about to come to it,
// and those that came from the source before.
func (m *mirroring) remember(ctx context.Context, src, dst *listing, mem memory) (memory, error) {
	came, news := map[id]bool{}, mem.keep == ""
	for name := range under(src[records], snapshots) {
		hash, _ := hashOf(name)
		came[hash] = true
		news = news || !mem.came[hash]
	}
	for name := range under(dst[records], snapshots) {
		if hash, _ := hashOf(name); mem.came[hash] || m.opts.AcceptRemovals {
			came[hash] = true
		}
	}
	if !news {
		return mem, nil
	}
	name, err := putMemory(ctx, m.target, cameMagic, came)
	if err != nil {
		return mem, err
	}
	mem.keep, mem.came = name, came
	mem.files = append(mem.files, name)
	return mem, nil
}

// loosen notes files that may go from the target without further evidence.
func (m *mirroring) loosen(ctx context.Context, names iter.Seq[string]) error {
	loose := map[id]bool{}
	for name := range names {
		if hash, ok := hashOf(name); ok {
			loose[hash] = true
		}
	}
	if len(loose) == 0 {
		return nil
	}
	_, err := putMemory(ctx, m.target, looseMagic, loose)
	return err
}

// claim ends that packs and index files of the source may go from the target
// without further evidence: the records that are about to come may need them.
// What the source does not have stays as it is noted, for removeAll.
func (m *mirroring) claim(ctx context.Context, src *listing) error {
	now, err := readMemory(ctx, m.target)
	if err != nil || len(now.marks) == 0 {
		return err
	}
	for _, c := range []class{packs, indexes} {
		for name := range src[c] {
			hash, _ := hashOf(name)
			delete(now.loose, hash)
		}
	}
	rest := ""
	if len(now.loose) > 0 {
		if rest, err = putMemory(ctx, m.target, looseMagic, now.loose); err != nil {
			return err
		}
	}
	for _, name := range now.marks {
		if name == rest {
			continue
		}
		if err := m.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	return nil
}

// forget removes what the target need not remember any more; with marks, also
// what may go from it.
func (m *mirroring) forget(ctx context.Context, mem memory, marks bool) error {
	now, err := readMemory(ctx, m.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for _, name := range now.files {
		if name == mem.keep || !marks && slices.Contains(now.marks, name) {
			continue
		}
		if err := m.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
