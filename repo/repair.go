package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/replace"
)

// RepairOptions say how to repair.
type RepairOptions struct {
	// DryRun changes nothing.
	DryRun bool
	// Progress, if not nil, is told what is being done, and how far it is.
	Progress func(phase string, done, total int64)
}

func (o *RepairOptions) tell(phase string, done, total int64) {
	if o.Progress != nil {
		o.Progress(phase, done, total)
	}
}

// forRepair refuses to change a repository in which others may be at work, and
// finishes what a repair before has left undone.
func (r *Repo) forRepair(ctx context.Context, dryRun bool) error {
	if dryRun {
		return nil
	}
	if r.lock == nil || r.lock.body.Kind != LockExclusive {
		return errors.New("repair: the repository is not locked for that")
	}
	return replace.Finish(ctx, r.be)
}

// IndexRepair says what RepairIndex has found and done, or would do.
type IndexRepair struct {
	Packs      int      `json:"packs"`      // in the index now
	Damaged    []string `json:"damaged"`    // index files that cannot be read
	Added      []FileID `json:"added"`      // packs that no index file listed
	Corrected  []FileID `json:"corrected"`  // packs of which the index said something wrong
	Dropped    []FileID `json:"dropped"`    // packs that were listed and are not there
	Unreadable []FileID `json:"unreadable"` // packs that no index file lists and that do not tell what they hold
	Written    int      `json:"written_files"`
	Removed    int      `json:"removed_files"`
}

// Changed reports whether there was something to repair.
func (x *IndexRepair) Changed() bool {
	return len(x.Damaged)+len(x.Added)+len(x.Corrected)+len(x.Dropped) > 0
}

// RepairIndex makes the index say what the packs say: it reads the header of
// every pack and, where the index files say something else, or are damaged or
// gone, writes new ones and then removes the old. Of a pack whose header is
// damaged the index is believed. Packs that a prune has announced and no index
// lists stay out, unless index files are damaged or missing: then they may have
// been listed, and a snapshot may need them. The prune decides that anew.
//
// The caller holds a lock of kind LockExclusive, but for a dry run. The index
// is loaded anew.
func (r *Repo) RepairIndex(ctx context.Context, opts RepairOptions) (*IndexRepair, error) {
	if err := r.forRepair(ctx, opts.DryRun); err != nil {
		return nil, err
	}
	rep := &IndexRepair{Damaged: []string{}, Added: []FileID{}, Corrected: []FileID{}, Dropped: []FileID{}, Unreadable: []FileID{}}
	old, err := r.readIndex(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, err := range old.damage {
		var d *DamageError
		if errors.As(err, &d) {
			rep.Damaged = append(rep.Damaged, d.File)
		}
	}
	oldFiles, err := r.namesIn(ctx, indexDir)
	if err != nil {
		return nil, err
	}
	lists, err := r.pruneLists(ctx)
	if err != nil {
		return nil, err
	}
	announced := map[FileID]bool{}
	for _, l := range lists {
		for _, id := range l.Packs {
			announced[id] = true
		}
	}
	var files []backend.Info
	if err := r.be.List(ctx, packsDir, func(f backend.Info) error {
		if id, err := fileID(f.Name); err == nil && packName(pack.ID(id)) == f.Name {
			files = append(files, f)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	there := map[pack.ID]bool{}
	var sealed [][]byte
	file := &index.File{}
	flush := func() error {
		if file.Len() == 0 {
			return nil
		}
		b, err := file.Seal(r.indexes)
		sealed, file = append(sealed, b), &index.File{}
		return err
	}
	// What is announced comes last: whether it is taken in depends on the others.
	isAnnounced := func(f backend.Info) bool { fid, _ := fileID(f.Name); return announced[fid] }
	slices.SortStableFunc(files, func(a, b backend.Info) int {
		switch x, y := isAnnounced(a), isAnnounced(b); {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	})
	for i, f := range files {
		opts.tell("reading pack headers", int64(i), int64(len(files)))
		fid, _ := fileID(f.Name)
		id := pack.ID(fid)
		p, listed := old.Pack(id)
		h, err := r.readHeader(ctx, f)
		size := f.Size
		switch {
		case err != nil && !errors.Is(err, ErrDamaged):
			return nil, fmt.Errorf("read the header of %s: %w", f.Name, err)
		case err != nil && listed:
			h, size = headerOf(old.Index, p), p.Size
		case err != nil:
			rep.Unreadable = append(rep.Unreadable, fid)
			continue
		case !listed && announced[fid] && len(rep.Damaged)+len(rep.Added)+len(rep.Unreadable) == 0:
			continue // a prune was cut off before it removed it
		case !listed:
			rep.Added = append(rep.Added, fid)
		case !sameHeader(old.Index, p, h) || p.Size != f.Size:
			rep.Corrected = append(rep.Corrected, fid)
		}
		there[id] = true
		rep.Packs++
		file.Add(id, size, &h)
		if file.Size() >= maxIndexSize {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	for _, p := range old.Packs() {
		if !there[p.ID] {
			rep.Dropped = append(rep.Dropped, FileID(p.ID))
		}
	}
	if opts.DryRun || !rep.Changed() {
		return rep, r.LoadIndex(ctx)
	}
	opts.tell("writing the index", 0, 0)
	keep := map[string]bool{}
	for _, b := range sealed {
		id, err := r.putNamed(ctx, indexDir, b)
		if err != nil {
			return nil, fmt.Errorf("store an index file: %w", err)
		}
		keep[indexDir+id.String()] = true
		rep.Written++
	}
	for _, name := range oldFiles {
		if keep[name] {
			continue
		}
		if err := r.be.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return nil, fmt.Errorf("remove an index file: %w", err)
		}
		rep.Removed++
	}
	return rep, r.LoadIndex(ctx)
}

// namesIn lists the files of a folder that are named by a hash.
func (r *Repo) namesIn(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := r.be.List(ctx, dir, func(f backend.Info) error {
		if _, err := fileID(f.Name); err == nil {
			names = append(names, f.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return names, nil
}

// headerOf is what an index says of a pack, in the form of the pack's header.
func headerOf(x *index.Index, p index.Pack) pack.Header {
	h := pack.Header{Kind: p.Kind}
	for _, ref := range p.Blocks {
		_, b := x.Block(ref)
		h.Blocks = append(h.Blocks, b)
	}
	return h
}

// sameHeader reports whether an index says of a pack what its header says.
func sameHeader(x *index.Index, p index.Pack, h pack.Header) bool {
	if p.Kind != h.Kind || len(p.Blocks) != len(h.Blocks) {
		return false
	}
	for i, ref := range p.Blocks {
		_, a := x.Block(ref)
		b := &h.Blocks[i]
		if a.Offset != b.Offset || a.Stored != b.Stored || a.Encoding != b.Encoding || !slices.Equal(a.Dict, b.Dict) || !slices.Equal(a.Chunks, b.Chunks) {
			return false
		}
	}
	return true
}
