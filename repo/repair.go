package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	if !r.lockedFor(LockExclusive) {
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
	x := &indexRepairer{r: r, rep: &IndexRepair{
		Damaged: []string{}, Added: []FileID{}, Corrected: []FileID{}, Dropped: []FileID{}, Unreadable: []FileID{},
	}, there: map[pack.ID]bool{}}
	x.packs = r.newIndexBuilder(func(_ context.Context, file []byte) error { x.files = append(x.files, file); return nil })
	if err := x.readOld(ctx); err != nil {
		return nil, err
	}
	packs, err := x.list(ctx)
	if err != nil {
		return nil, err
	}
	for i, f := range packs {
		opts.tell("reading pack headers", int64(i), int64(len(packs)))
		if err := x.pack(ctx, f); err != nil {
			return nil, err
		}
	}
	if err := x.packs.flush(ctx); err != nil {
		return nil, err
	}
	for _, p := range x.old.Packs() {
		if !x.there[p.ID] {
			x.rep.Dropped = append(x.rep.Dropped, FileID(p.ID))
		}
	}
	if opts.DryRun || !x.rep.Changed() {
		return x.rep, r.LoadIndex(ctx)
	}
	opts.tell("writing the index", 0, 0)
	if err := x.write(ctx); err != nil {
		return nil, err
	}
	return x.rep, r.LoadIndex(ctx)
}

// indexRepairer is one run of RepairIndex.
type indexRepairer struct {
	r         *Repo
	rep       *IndexRepair
	old       *indexRead
	oldFiles  []string
	announced map[FileID]bool  // packs that a prune is about to remove
	there     map[pack.ID]bool // packs that the new index lists
	packs     *indexBuilder
	files     [][]byte // of the new index
}

// readOld reads the index files as they are.
func (x *indexRepairer) readOld(ctx context.Context) (err error) {
	if x.old, err = x.r.readIndex(ctx, nil); err != nil {
		return err
	}
	for _, err := range x.old.damage {
		var d *DamageError
		if errors.As(err, &d) {
			x.rep.Damaged = append(x.rep.Damaged, d.File)
		}
	}
	if x.oldFiles, err = x.r.namesIn(ctx, indexDir); err != nil {
		return err
	}
	x.announced, err = x.r.announcedPacks(ctx)
	return err
}

// list lists the packs. Those that a prune is about to remove come last: whether
// they belong in the index depends on the others.
func (x *indexRepairer) list(ctx context.Context) (files []backend.Info, err error) {
	var last []backend.Info
	err = x.r.be.List(ctx, packsDir, func(f backend.Info) error {
		id, err := fileID(f.Name)
		switch {
		case err != nil || packName(pack.ID(id)) != f.Name:
		case x.announced[id]:
			last = append(last, f)
		default:
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	return append(files, last...), nil
}

// pack lists a pack in the new index, by its header if that can be read.
func (x *indexRepairer) pack(ctx context.Context, f backend.Info) error {
	rep := x.rep
	fid, _ := fileID(f.Name)
	id := pack.ID(fid)
	p, listed := x.old.Pack(id)
	h, err := x.r.readHeader(ctx, f)
	size := f.Size
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
		return fmt.Errorf("read the header of %s: %w", f.Name, err)
	case err != nil && listed:
		h, size = headerOf(x.old.Index, p), p.Size
	case err != nil:
		rep.Unreadable = append(rep.Unreadable, fid)
		return nil
	case !listed && x.announced[fid] && len(rep.Damaged)+len(rep.Added)+len(rep.Unreadable) == 0:
		return nil // a prune was cut off before it removed it
	case !listed:
		rep.Added = append(rep.Added, fid)
	case !sameHeader(x.old.Index, p, h) || p.Size != f.Size:
		rep.Corrected = append(rep.Corrected, fid)
	}
	x.there[id] = true
	rep.Packs++
	return x.packs.add(ctx, id, size, &h)
}

// write stores the new index files, then removes the old ones.
func (x *indexRepairer) write(ctx context.Context) error {
	var keep, old []string
	for _, b := range x.files {
		name, err := x.r.putIndex(ctx, b)
		if err != nil {
			return err
		}
		keep = append(keep, name)
		x.rep.Written++
	}
	for _, name := range x.oldFiles {
		if !slices.Contains(keep, name) {
			old = append(old, name)
		}
	}
	x.rep.Removed = len(old)
	return x.r.removeIndex(ctx, old)
}
