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
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
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
	// Healed are config and its copy, if they were put back. That needs no mirror.
	Healed []string `json:"healed"`
	// Fetched are files that came from the mirror: they replace damaged ones or
	// hold missing content.
	Fetched      []string `json:"fetched"`
	FetchedBytes int64    `json:"fetched_bytes"`
	// FromLedger are records of snapshots that the ledger had a copy of.
	FromLedger []string `json:"from_ledger"`
	// Ledger are damaged files of the ledger that could not be replaced by those of the
	// mirror. They were removed, except in a dry run.
	Ledger []string `json:"ledger"`
	// Aside are the new names of folders, links and other things that had the names of files
	// of the ledger and could not be replaced, either. A dry run counts them in Ledger.
	Aside []string `json:"aside"`
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
	return []string{layout.KeysDir, layout.ConfigsDir, layout.PacksDir, layout.IndexDir, layout.SnapshotsDir, layout.SecretsDir, layout.RunsDir, layout.CertificatesDir, layout.LedgerDir}
}

// FromMirror heals a repository from a mirror, as repo.Repo.HealFromMirror
// describes.
func FromMirror(ctx context.Context, r *store.Store, from backend.Backend, opts Options) (*Report, error) {
	aside, err := repair.Begin(ctx, r, opts.DryRun)
	if err != nil {
		return nil, err
	}
	h := &healer{r: r, from: from, opts: opts, bad: map[pack.ID]bool{}, rep: Report{
		Damaged: []string{}, Healed: []string{}, Fetched: []string{}, FromLedger: []string{}, Ledger: []string{}, Aside: append([]string{}, aside...), Unhealed: []string{}, Elsewhere: []layout.FileID{},
	}}
	h.m = store.New(from, r.Options, r.Config, r.MasterKey)
	found, err := store.FindConfigs(ctx, from)
	if err == nil && len(found.Found) == 0 {
		err = found.Because(found.Damage)
	}
	var ours bool
	if err == nil {
		ours, err = found.Any(ctx, h.isOurs)
	}
	if err == nil && !ours {
		err = store.ErrOtherRepository
	}
	if err != nil {
		return nil, fmt.Errorf("the copy: %w", err)
	}
	// Folders may be lost. Records that only the copy has are reported.
	if f, ok := r.Backend.(backend.Folders); ok && !opts.DryRun {
		for _, dir := range []string{layout.SnapshotsDir, layout.PacksDir} {
			if err := f.MakeFolder(ctx, dir); err != nil {
				return nil, err
			}
		}
	}
	if err := h.healFiles(ctx); err != nil {
		return nil, err
	}
	if err := h.fetchLedger(ctx); err != nil {
		return nil, err
	}
	if err := h.healRecords(ctx); err != nil {
		return nil, err
	}
	if h.rep.Index, err = repair.Index(ctx, r, opts.Options); err != nil {
		return nil, err
	}
	if err := h.m.LoadIndex(ctx); err != nil {
		return nil, fmt.Errorf("the copy: %w", err)
	}
	if err := h.fetchContent(ctx); err != nil {
		return nil, err
	}
	if opts.DryRun {
		return &h.rep, r.LoadListed(ctx) // a folder may be missing
	}
	// Snapshots that only the copy had count again, also if they were forgotten here.
	if err := h.healRecords(ctx); err != nil {
		return nil, err
	}
	return &h.rep, r.LoadIndex(ctx)
}

// fetchLedger fetches the mirror's files of the ledger if some are damaged here that no file
// of the same name can replace: nobody knows what was in them. It also does so if the mirror's
// ledger knows records of which nothing is known here, so that files were lost. Of two files
// that say something about a record, the greatest turn counts, so older files do no harm.
func (h *healer) fetchLedger(ctx context.Context) error {
	l, err := ledger.Read(ctx, h.r)
	if err == nil && l.Unlisted != nil {
		err = l.Unlisted
	}
	if err != nil {
		return err
	}
	lost := false
	for _, err := range l.Damaged {
		var d *store.DamageError
		if !errors.As(err, &d) || slices.Contains(h.rep.Fetched, d.File) {
			continue
		}
		lost = true
		if !slices.Contains(h.rep.Damaged, d.File) {
			h.rep.Damaged = append(h.rep.Damaged, d.File)
		}
	}
	theirs, err := ledger.Read(ctx, h.m)
	if err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	if !lost && len(record.Unexplained(l, theirs)) == 0 {
		return nil
	}
	here, err := h.r.NamesIn(ctx, layout.LedgerDir)
	if err != nil {
		return err
	}
	there, err := h.m.NamesIn(ctx, layout.LedgerDir)
	if err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	for _, name := range there {
		if slices.Contains(here, name) {
			continue
		}
		switch err := ledger.Check(ctx, h.m, name); {
		case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrUnsupported):
			continue
		case err != nil:
			return fmt.Errorf("the copy: %w", err)
		}
		if err := h.fetchMissing(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// healRecords stores again the records that are missing here and of which the ledger has a
// copy, so that their content is fetched, too.
func (h *healer) healRecords(ctx context.Context) error {
	healed, err := record.Heal(ctx, h.r, h.opts.DryRun)
	h.rep.Aside = append(h.rep.Aside, healed.Aside...)
	for _, name := range healed.Removed {
		// In a dry run, the good file that would be fetched is not there yet.
		if !slices.Contains(h.rep.Ledger, name) && !slices.Contains(h.rep.Fetched, name) {
			h.rep.Ledger = append(h.rep.Ledger, name)
		}
	}
	for _, id := range healed.Records {
		name := layout.SnapshotsDir + id.String()
		if !slices.Contains(h.rep.FromLedger, name) {
			h.rep.FromLedger = append(h.rep.FromLedger, name)
		}
	}
	return err
}

// healFiles replaces damaged files by files of the same name from the mirror.
func (h *healer) healFiles(ctx context.Context) error {
	if err := h.healConfig(ctx); err != nil {
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
		sound, err := h.isGood(ctx, name, &buf)
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
			h.unhealed(name)
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

// unhealed notes a file that the mirror cannot replace.
func (h *healer) unhealed(name string) {
	if !slices.Contains(h.rep.Unhealed, name) {
		h.rep.Unhealed = append(h.rep.Unhealed, name)
	}
}

// isOurs reports whether a config is that of this repository.
func (h *healer) isOurs(f *store.ConfigFile) bool {
	cfg, err := f.Open(h.r.MasterKey)
	return err == nil && cfg.ID == h.r.Config.ID
}

// healConfig replaces a damaged config by the one that this repository's key has opened.
func (h *healer) healConfig(ctx context.Context) error {
	x, err := access.RepairConfig(ctx, h.r, h.opts.DryRun)
	if err != nil {
		return err
	}
	if x.Damage != "" {
		h.rep.Damaged = append(h.rep.Damaged, layout.ConfigName)
		h.rep.Healed = append(h.rep.Healed, layout.ConfigName)
	}
	if x.Stored {
		h.rep.Healed = append(h.rep.Healed, x.Copy)
	}
	return nil
}

// isGood reports whether a file here matches its name.
func (h *healer) isGood(ctx context.Context, name string, buf *[]byte) (bool, error) {
	if id, _ := layout.ParseFileID(name); strings.HasPrefix(name, layout.PacksDir) {
		damage, err := repair.PackDamage(ctx, h.r, index.Pack{ID: pack.ID(id)}, buf)
		return damage == nil && err == nil, err
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
		return nil, fmt.Errorf("read the copy: %w", err)
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

// fetchContent fetches the packs that hold needed chunks that are missing here, then
// the records of the mirror's snapshots if asked for.
func (h *healer) fetchContent(ctx context.Context) error {
	list, _, err := record.List(ctx, h.r)
	if err != nil {
		return err
	}
	more, err := h.findElsewhere(ctx, list)
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
	n := packFinder{h: h, added: added, nodes: map[chunk.ID]bool{}, missing: map[chunk.ID]bool{}, packs: map[pack.ID]bool{}, blocks: map[block]bool{}}
	for i, s := range append(slices.Clone(list), more...) {
		h.opts.Tell("looking at snapshots", int64(i), int64(len(list)+len(more)))
		if err := n.findSnapshot(ctx, s); err != nil {
			return err
		}
	}
	for _, run := range runs {
		for _, root := range run.Parts {
			if err := n.findTree(ctx, root, -1); err != nil {
				return err
			}
		}
	}
	h.rep.MissingChunks = len(n.missing)
	fetched := indexfile.NewBuilder(h.r, func(ctx context.Context, file []byte) error { _, err := indexfile.Put(ctx, h.r, file); return err })
	for i, id := range n.order {
		h.opts.Tell("fetching packs", int64(i), int64(len(n.order)))
		name := layout.PackName(id)
		// If a repair has removed a pack from the index, healFiles may already have
		// replaced its damaged file by the good one. Then only the index lacks it.
		if !slices.Contains(h.rep.Fetched, name) {
			b, err := h.fetch(ctx, name)
			if err != nil {
				return err
			}
			if b == nil {
				h.unhealed(name)
				continue
			}
			if err := h.put(ctx, name, b, false); err != nil {
				return err
			}
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
		if err := h.fetchMissing(ctx, layout.SnapshotsDir+s.ID.String()); err != nil {
			return err
		}
	}
	return h.fetchCertificates(ctx, append(slices.Clone(list), more...))
}

// fetchCertificates fetches the certificates that this repository lacks, of the given
// snapshots. Usually it lacks none: certificates are only removed after their snapshots.
func (h *healer) fetchCertificates(ctx context.Context, snapshots []*record.Snapshot) error {
	list, _, err := certificate.List(ctx, h.m)
	if err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	here, err := h.r.NamesIn(ctx, layout.CertificatesDir)
	if err != nil {
		return err
	}
	for _, c := range list {
		name := layout.CertificatesDir + c.ID.String()
		if slices.Contains(here, name) || !slices.ContainsFunc(snapshots, func(s *record.Snapshot) bool { return s.Has(c.Snapshot) }) {
			continue
		}
		if err := h.fetchMissing(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// fetchMissing fetches a file that this repository does not have.
func (h *healer) fetchMissing(ctx context.Context, name string) error {
	b, err := h.fetch(ctx, name)
	if err != nil || b == nil {
		return err
	}
	return h.put(ctx, name, b, false)
}

// findElsewhere reports snapshots that only the mirror has, and returns those to fetch.
func (h *healer) findElsewhere(ctx context.Context, here []*record.Snapshot) ([]*record.Snapshot, error) {
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
