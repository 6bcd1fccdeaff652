// Package heal replaces damaged and missing files of a repository by good ones: from
// a mirror, from parity, or from content in another repository.
//
// It stores nothing that does not match its name or chunk ID.
package heal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/repair"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// Options say how to heal from a mirror.
type Options struct {
	repair.Options
	// Snapshots also fetches snapshots that only the mirror has. They may have been
	// lost here, or forgotten.
	Snapshots bool
}

// Report says what FromMirror found and did, or would do.
type Report struct {
	Read    int      `json:"read_files"` // here
	Damaged []string `json:"damaged"`    // here
	// Fetched are files that came from the mirror: they replace damaged ones or
	// hold missing content.
	Fetched      []string `json:"fetched"`
	FetchedBytes int64    `json:"fetched_bytes"`
	// Unhealed are damaged files that the mirror lacks, or that are damaged there,
	// too.
	Unhealed []string            `json:"unhealed"`
	Index    *repair.IndexRepair `json:"index"`
	// Elsewhere are snapshots that only the mirror has.
	Elsewhere []layout.FileID `json:"elsewhere"`
	// MissingChunks counts needed chunks that are neither here nor in the mirror.
	MissingChunks int `json:"missing_chunks"`
}

// healer is one run of FromMirror.
type healer struct {
	r    *store.Store
	from backend.Backend
	m    *store.Store // the mirror
	opts Options
	rep  Report
	bad  map[pack.ID]bool // packs that stay damaged
}

// copiedDirs returns the folders in which a mirror has the same files.
func copiedDirs() []string {
	return []string{layout.KeysDir, layout.PacksDir, layout.IndexDir, layout.SnapshotsDir, layout.SecretsDir, layout.RunsDir}
}

// FromMirror heals a repository from a mirror, as repo.Repo.HealFromMirror
// describes.
func FromMirror(ctx context.Context, r *store.Store, from backend.Backend, opts Options) (*Report, error) {
	if err := repair.Begin(ctx, r, opts.DryRun); err != nil {
		return nil, err
	}
	h := &healer{r: r, from: from, opts: opts, bad: map[pack.ID]bool{}, rep: Report{
		Damaged: []string{}, Fetched: []string{}, Unhealed: []string{}, Elsewhere: []layout.FileID{},
	}}
	h.m = store.New(from, r.Options, r.Config, r.MasterKey)
	f, err := store.ReadConfig(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("the copy: %w", err)
	}
	cfg, err := f.Open(r.MasterKey)
	if err != nil || cfg.ID != r.Config.ID {
		return nil, fmt.Errorf("the copy: %w", ErrOtherRepository)
	}
	if err := h.files(ctx); err != nil {
		return nil, err
	}
	if h.rep.Index, err = repair.Index(ctx, r, opts.Options); err != nil {
		return nil, err
	}
	if err := h.m.LoadIndex(ctx); err != nil {
		return nil, fmt.Errorf("the copy: %w", err)
	}
	if err := h.content(ctx); err != nil {
		return nil, err
	}
	return &h.rep, r.LoadIndex(ctx)
}

// ErrOtherRepository says that a repository is not a copy of this one.
var ErrOtherRepository = errors.New("it is another repository, with other keys")

// files replaces damaged files by files of the same name from the mirror.
func (h *healer) files(ctx context.Context) error {
	if err := h.config(ctx); err != nil {
		return err
	}
	var names []string
	for _, dir := range copiedDirs() {
		in, err := h.r.NamesIn(ctx, dir)
		if err != nil {
			return err
		}
		names = append(names, in...)
	}
	slices.Sort(names)
	var buf []byte
	for i, name := range names {
		h.opts.Tell("reading all files", int64(i), int64(len(names)))
		h.rep.Read++
		sound, err := h.sound(ctx, name, &buf)
		if err != nil {
			return err
		}
		if sound {
			continue
		}
		h.rep.Damaged = append(h.rep.Damaged, name)
		b, err := h.fetch(ctx, name)
		if err != nil {
			return err
		}
		if b == nil {
			h.rep.Unhealed = append(h.rep.Unhealed, name)
			if id, err := layout.ParseFileID(name); err == nil && strings.HasPrefix(name, layout.PacksDir) {
				h.bad[pack.ID(id)] = true
			}
			continue
		}
		if err := h.put(ctx, name, b, true); err != nil {
			return err
		}
	}
	return nil
}

// config replaces a damaged config by that of the mirror, which this repository's
// key has opened.
func (h *healer) config(ctx context.Context) error {
	f, err := store.ReadConfig(ctx, h.r.Backend)
	if err == nil {
		_, err = f.Open(h.r.MasterKey)
	}
	if err == nil || !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrUnsupported) {
		return err
	}
	h.rep.Damaged = append(h.rep.Damaged, layout.ConfigName)
	b, err := backend.ReadAll(ctx, h.from, layout.ConfigName, layout.MaxConfigSize)
	if err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	return h.put(ctx, layout.ConfigName, b, true)
}

// sound reports whether a file here matches its name.
func (h *healer) sound(ctx context.Context, name string, buf *[]byte) (bool, error) {
	if id, _ := layout.ParseFileID(name); strings.HasPrefix(name, layout.PacksDir) {
		text, err := repair.PackDamage(ctx, h.r, index.Pack{ID: pack.ID(id)}, buf)
		return text == "", err
	}
	_, err := h.r.ReadNamed(ctx, name, layout.MaxFileSize)
	if errors.Is(err, store.ErrDamaged) {
		return false, nil
	}
	return err == nil, err
}

// fetch reads a file of the mirror. It returns nil if the file is missing or
// damaged there, too.
func (h *healer) fetch(ctx context.Context, name string) ([]byte, error) {
	b, err := store.ReadNamed(ctx, h.from, name, layout.MaxFileSize)
	if err == nil {
		return b, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if !errors.Is(err, store.ErrDamaged) {
		// Find out whether only this file or the entire mirror cannot be read.
		if _, gone := h.from.Stat(ctx, layout.ConfigName); gone != nil {
			return nil, fmt.Errorf("read the copy: %w", err)
		}
	}
	return nil, nil
}

// put stores a fetched file. overwrite says that it replaces a damaged one.
func (h *healer) put(ctx context.Context, name string, b []byte, overwrite bool) error {
	h.rep.Fetched = append(h.rep.Fetched, name)
	h.rep.FetchedBytes += int64(len(b))
	if h.opts.DryRun {
		return nil
	}
	if overwrite {
		return replace.Put(ctx, h.r.Backend, name, b)
	}
	if err := h.r.Backend.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("store what came from the copy: %w", err)
	}
	return nil
}

// content fetches the packs that hold needed chunks that are missing here, then the
// records of the mirror's snapshots if asked for.
func (h *healer) content(ctx context.Context) error {
	list, _, err := record.List(ctx, h.r)
	if err != nil {
		return err
	}
	more, err := h.elsewhere(ctx, list)
	if err != nil {
		return err
	}
	runs, _, err := record.AllUnfinished(ctx, h.r)
	if err != nil {
		return err
	}
	// In a dry run, the packs that the repaired index would list are in no index.
	added := map[pack.ID]bool{}
	for _, id := range h.rep.Index.Added {
		added[pack.ID(id)] = h.opts.DryRun
	}
	n := need{h: h, added: added, nodes: map[chunk.ID]bool{}, missing: map[chunk.ID]bool{}, packs: map[pack.ID]bool{}, blocks: map[block]bool{}}
	for i, s := range append(slices.Clone(list), more...) {
		h.opts.Tell("looking at snapshots", int64(i), int64(len(list)+len(more)))
		if err := n.snapshot(ctx, s); err != nil {
			return err
		}
	}
	for _, run := range runs {
		for _, root := range run.Parts {
			if err := n.tree(ctx, root, -1); err != nil {
				return err
			}
		}
	}
	h.rep.MissingChunks = len(n.missing)
	fetched := indexfile.NewBuilder(h.r, func(ctx context.Context, file []byte) error { _, err := indexfile.Put(ctx, h.r, file); return err })
	for i, id := range n.order {
		h.opts.Tell("fetching packs", int64(i), int64(len(n.order)))
		name := layout.PackName(id)
		b, err := h.fetch(ctx, name)
		if err != nil {
			return err
		}
		if b == nil {
			h.rep.Unhealed = append(h.rep.Unhealed, name)
			continue
		}
		if err := h.put(ctx, name, b, false); err != nil {
			return err
		}
		if h.opts.DryRun {
			continue
		}
		p, _ := h.m.Index.Pack(id)
		header := indexfile.HeaderOf(h.m.Index, p)
		if err := fetched.Add(ctx, id, p.Size, &header); err != nil {
			return err
		}
	}
	if err := fetched.Flush(ctx); err != nil {
		return err
	}
	for _, s := range more {
		b, err := h.fetch(ctx, layout.SnapshotsDir+s.ID.String())
		if err != nil {
			return err
		}
		if b != nil {
			if err := h.put(ctx, layout.SnapshotsDir+s.ID.String(), b, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// elsewhere reports snapshots that only the mirror has, and returns those to fetch.
func (h *healer) elsewhere(ctx context.Context, here []*record.Snapshot) ([]*record.Snapshot, error) {
	all, _, err := record.List(ctx, h.m)
	if err != nil {
		return nil, fmt.Errorf("the copy: %w", err)
	}
	var more []*record.Snapshot
	for _, s := range all {
		if slices.ContainsFunc(here, func(o *record.Snapshot) bool { return o.ID == s.ID || o.FirstID() == s.FirstID() }) {
			continue
		}
		h.rep.Elsewhere = append(h.rep.Elsewhere, s.ID)
		if h.opts.Snapshots {
			more = append(more, s)
		}
	}
	return more, nil
}
