// Package repair removes damaged parts from the index, the packs and the snapshots
// of a repository, and keeps the rest. It marks lost files, so that a later repair
// can put them back. It fetches nothing: see package heal.
package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// Options say how to repair.
type Options struct {
	// DryRun changes nothing.
	DryRun bool
	// Progress, if not nil, is called with the current phase and how far it is.
	Progress func(phase string, done, total int64)
}

// Tell calls Progress, if it is not nil.
func (o *Options) Tell(phase string, done, total int64) {
	if o.Progress != nil {
		o.Progress(phase, done, total)
	}
}

// Begin fails if this process does not hold an exclusive lock. It completes the
// replacements of files that an interrupted repair has begun, and returns the new names of
// what it has moved aside for that. In a dry run it does nothing.
func Begin(ctx context.Context, r *store.Store, dryRun bool) (aside []string, err error) {
	if dryRun {
		return nil, nil
	}
	if !lock.Holds(r, lock.Exclusive) {
		return nil, errors.New("repair: the repository is not locked exclusively")
	}
	return replace.Finish(ctx, r.Backend)
}

// Config repairs config and its copies, as repo.Repo.RepairConfig describes.
func Config(ctx context.Context, r *store.Store, opts Options) (*access.ConfigRepair, error) {
	aside, err := Begin(ctx, r, opts.DryRun)
	if err != nil {
		return nil, err
	}
	rep, err := access.RepairConfig(ctx, r, opts.DryRun)
	if err == nil && rep.Aside == "" && len(aside) > 0 {
		rep.Aside = aside[0]
	}
	return rep, err
}

// IndexRepair says what Index found and did, or would do.
type IndexRepair struct {
	Packs      int             `json:"packs"`      // in the index now
	Damaged    []string        `json:"damaged"`    // index files that cannot be read
	Added      []layout.FileID `json:"added"`      // packs that no index file listed
	Corrected  []layout.FileID `json:"corrected"`  // packs that the index described wrongly
	Dropped    []layout.FileID `json:"dropped"`    // packs that were listed and do not exist
	Unreadable []layout.FileID `json:"unreadable"` // unlisted packs with a damaged header
	Written    int             `json:"written_files"`
	Removed    int             `json:"removed_files"`
	// Aside are the new names of folders, links and other things that had the names of files.
	Aside []string `json:"aside"`
}

// Changed reports whether the index differs from the packs.
func (x *IndexRepair) Changed() bool {
	return len(x.Damaged)+len(x.Added)+len(x.Corrected)+len(x.Dropped) > 0
}

// Index makes the index agree with the packs, as repo.Repo.RepairIndex describes.
func Index(ctx context.Context, r *store.Store, opts Options) (*IndexRepair, error) {
	aside, err := Begin(ctx, r, opts.DryRun)
	if err != nil {
		return nil, err
	}
	// If the folder of packs is missing, the new index would be empty, and nobody would
	// know any more which packs there were.
	if err := r.MustHaveFolder(ctx, layout.PacksDir); err != nil && !opts.DryRun {
		return nil, err
	}
	x := &indexRepairer{r: r, rep: &IndexRepair{
		Damaged: []string{}, Added: []layout.FileID{}, Corrected: []layout.FileID{}, Dropped: []layout.FileID{}, Unreadable: []layout.FileID{}, Aside: append([]string{}, aside...),
	}, listed: map[pack.ID]bool{}}
	x.packs = indexfile.NewBuilder(r, func(_ context.Context, file []byte) error { x.files = append(x.files, file); return nil })
	if err := x.readOld(ctx); err != nil {
		return nil, err
	}
	packs, err := x.listPacks(ctx)
	if err != nil {
		return nil, err
	}
	for i, f := range packs {
		opts.Tell("reading pack headers", int64(i), int64(len(packs)))
		if err := x.addPack(ctx, f); err != nil {
			return nil, err
		}
	}
	if err := x.packs.Flush(ctx); err != nil {
		return nil, err
	}
	for _, p := range x.old.Packs() {
		if !x.listed[p.ID] {
			x.rep.Dropped = append(x.rep.Dropped, layout.FileID(p.ID))
		}
	}
	if opts.DryRun || !x.rep.Changed() {
		return x.rep, r.LoadListed(ctx)
	}
	opts.Tell("writing the index", 0, 0)
	if err := x.writeFiles(ctx); err != nil {
		return nil, err
	}
	return x.rep, r.LoadListed(ctx)
}

// indexRepairer is one run of Index.
type indexRepairer struct {
	r        *store.Store
	rep      *IndexRepair
	old      *store.IndexFiles
	oldFiles []string
	retired  map[layout.FileID]bool // packs on prune lists
	listed   map[pack.ID]bool       // packs that the new index lists
	packs    *indexfile.Builder
	files    [][]byte // of the new index
}

// readOld reads the present index files.
func (x *indexRepairer) readOld(ctx context.Context) (err error) {
	if x.old, err = x.r.ReadIndex(ctx, nil); err != nil {
		return err
	}
	for _, err := range x.old.Damage {
		var d *store.DamageError
		if errors.As(err, &d) {
			x.rep.Damaged = append(x.rep.Damaged, d.File)
		}
	}
	if x.oldFiles, err = x.r.NamesIn(ctx, layout.IndexDir); err != nil {
		return err
	}
	x.retired, err = x.r.RetiredPacks(ctx)
	return err
}

// listPacks lists the packs. Packs on prune lists come last, since whether they
// belong in the index depends on the others.
func (x *indexRepairer) listPacks(ctx context.Context) (files []backend.Info, err error) {
	var last []backend.Info
	err = x.r.Backend.List(ctx, layout.PacksDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		switch {
		case err != nil:
		case x.retired[id]:
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

// addPack adds a pack to the new index: from its header if that can be read, or else
// from the old index.
func (x *indexRepairer) addPack(ctx context.Context, f backend.Info) error {
	rep := x.rep
	fid, _ := layout.ParseFileID(f.Name)
	id := pack.ID(fid)
	p, known := x.old.Pack(id)
	h, err := x.r.ReadHeader(ctx, f)
	size := f.Size
	switch {
	case err != nil && !errors.Is(err, store.ErrDamaged):
		return fmt.Errorf("read the header of %s: %w", f.Name, err)
	case err != nil && known:
		h, size = indexfile.HeaderOf(x.old.Index, p), p.Size
	case err != nil:
		rep.Unreadable = append(rep.Unreadable, fid)
		return nil
	case !known && x.retired[fid] && len(rep.Damaged)+len(rep.Added)+len(rep.Unreadable) == 0:
		return nil // a prune was interrupted before it removed the pack
	case !known:
		rep.Added = append(rep.Added, fid)
	case !x.old.Agrees(id, f.Size, &h):
		rep.Corrected = append(rep.Corrected, fid)
	}
	x.listed[id] = true
	rep.Packs++
	return x.packs.Add(ctx, id, size, &h)
}

// writeFiles stores the new index files, then removes the old ones.
func (x *indexRepairer) writeFiles(ctx context.Context) error {
	var keep []string
	for _, b := range x.files {
		name, err := indexfile.Put(ctx, x.r, b)
		if err != nil {
			return err
		}
		keep = append(keep, name)
		x.rep.Written++
	}
	for _, name := range x.oldFiles {
		if slices.Contains(keep, name) {
			continue
		}
		aside, err := replace.Clear(ctx, x.r.Backend, name)
		if aside != "" {
			x.rep.Aside = append(x.rep.Aside, aside)
		}
		if err != nil {
			return fmt.Errorf("remove an index file: %w", err)
		}
		x.rep.Removed++
	}
	return nil
}
