package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/check"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/tree"
)

// RepairedSnapshot is a snapshot that Snapshots replaced by a new version.
type RepairedSnapshot struct {
	check.Affected                // what is lost now
	New            *layout.FileID `json:"new,omitempty"` // the new record; nil in a dry run
	Regained       int64          `json:"regained"`      // files that were lost and are complete again
	Bytes          int64          `json:"bytes"`         // of the lost files
}

// SnapshotRepair says what Snapshots found and did, or would do.
type SnapshotRepair struct {
	Snapshots int                `json:"snapshots"`
	Repaired  []RepairedSnapshot `json:"repaired"`
	// Damaged are records that cannot be read. Which files they had is unknown.
	Damaged []string `json:"damaged"`
	Removed int      `json:"removed_records"`
	// Gone are those of Damaged that were removed.
	Gone []string `json:"-"`
	// Healed are records that were damaged or missing, and were stored again from the
	// ledger, except in a dry run.
	Healed []layout.FileID `json:"healed_records"`
	// Ledger are damaged files of the ledger. They were removed, except in a dry run.
	Ledger []string `json:"ledger"`
	// Aside are the new names of folders, links and other things that had the names of files.
	// A dry run counts them among the files of their kind.
	Aside []string `json:"aside"`
	// Denied are files of the ledger, certificates and records that this process has no
	// permission to read. They stay, since they may be good.
	Denied []string `json:"denied"`
	// Certificates are damaged certificates. They were removed, except in a dry run.
	Certificates []string `json:"certificates"`
	// Records are damaged records that no snapshot needs: kept passwords, unfinished
	// backups and prune lists. They were removed, except in a dry run.
	Records []string `json:"records"`
}

// Lost reports whether a repaired snapshot lacks something, or a file cannot be read and stays.
func (x *SnapshotRepair) Lost() bool {
	return len(x.Damaged)+len(x.Denied) > 0 || slices.ContainsFunc(x.Repaired, func(s RepairedSnapshot) bool { return s.Files > 0 || s.Tree })
}

// SnapshotRepairOptions are the options of Snapshots.
type SnapshotRepairOptions struct {
	Options
	// RemoveDamaged removes records that cannot be read. Their snapshots are lost
	// unless there is a copy. A prune refuses to run while such records exist.
	RemoveDamaged bool
}

// Snapshots makes new versions of incomplete snapshots, as
// repo.Repo.RepairSnapshots describes.
func Snapshots(ctx context.Context, r *store.Store, opts SnapshotRepairOptions) (*SnapshotRepair, error) {
	aside, err := Begin(ctx, r, opts.DryRun)
	if err != nil {
		return nil, err
	}
	healed, err := record.Heal(ctx, r, opts.DryRun)
	if err != nil {
		return nil, err
	}
	c, err := check.Find(ctx, r, check.Options{ReadData: 1, DryRun: opts.DryRun, Progress: func(done, total int64) { opts.Tell("reading packs", done, total) }})
	if err != nil {
		return nil, err
	}
	if c.Denied != nil && len(c.Report.Affected) > 0 {
		return nil, fmt.Errorf("no snapshot was marked, since what is lost is not known: %w", c.Denied)
	}
	rep := &SnapshotRepair{Snapshots: len(c.Snapshots), Repaired: []RepairedSnapshot{}, Damaged: []string{}, Certificates: []string{}, Records: []string{}, Healed: append([]layout.FileID{}, healed.Records...), Ledger: append([]string{}, healed.Removed...), Aside: append([]string{}, aside...), Denied: []string{}}
	rep.leave(&healed.Cleared)
	var again []string // records that were stored again, but still cannot be read
	for _, err := range c.DamagedSnapshots {
		var d *store.DamageError
		switch {
		case !errors.As(err, &d):
		case backend.IsDenied(err):
			rep.Denied = append(rep.Denied, d.File)
		case !rep.heals(d.File):
			rep.Damaged = append(rep.Damaged, d.File)
		case !opts.DryRun:
			rep.Damaged, again = append(rep.Damaged, d.File), append(again, d.File)
		}
	}
	rep.Healed = slices.DeleteFunc(rep.Healed, func(id layout.FileID) bool { return slices.Contains(again, layout.SnapshotsDir+id.String()) })
	incomplete := map[layout.FileID]bool{}
	for _, s := range c.Report.Affected {
		incomplete[s.Snapshot] = true
	}
	// Remove superseded records, which an interrupted change or repair leaves,
	// unless the newer record is incomplete.
	for _, s := range c.Superseded {
		newer := slices.IndexFunc(c.Snapshots, func(o *record.Snapshot) bool { return o.FirstID() == s.FirstID() })
		if opts.DryRun || newer >= 0 && incomplete[c.Snapshots[newer].ID] {
			continue
		}
		// Forget would remove all records of the snapshot.
		if err := record.Delete(ctx, r, s.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return rep, err
		}
	}
	for i, s := range c.Snapshots {
		opts.Tell("repairing snapshots", int64(i), int64(len(c.Snapshots)))
		if !incomplete[s.ID] && s.Lost == nil {
			continue
		}
		b := rebuild{c: c, s: s}
		done, err := b.run(ctx, opts.DryRun)
		if err != nil {
			return rep, fmt.Errorf("repair snapshot %s: %w", s.ID.Short(), err)
		}
		if done != nil {
			rep.Repaired = append(rep.Repaired, *done)
		}
	}
	certificates, err := certificate.RemoveDamaged(ctx, r, opts.DryRun)
	rep.Certificates = append(rep.Certificates, certificates.Removed...)
	rep.leave(&certificates)
	if err != nil {
		return rep, err
	}
	records, err := removeRecords(ctx, r, opts.DryRun)
	rep.Records = append(rep.Records, records.Removed...)
	rep.leave(&records)
	if err != nil || !opts.RemoveDamaged || opts.DryRun {
		return rep, err
	}
	return rep, rep.removeDamaged(ctx, r, again)
}

// leave reports what was not removed, and why.
func (x *SnapshotRepair) leave(c *store.Cleared) {
	x.Aside, x.Denied = append(x.Aside, c.Aside...), append(x.Denied, c.Denied...)
}

// removeDamaged removes the records that cannot be read, except some.
func (x *SnapshotRepair) removeDamaged(ctx context.Context, r *store.Store, except []string) error {
	for _, name := range x.Damaged {
		id, err := layout.ParseFileID(name)
		if err != nil || slices.Contains(except, name) || !store.Hopeless(ctx, func() error { _, err := record.Load(ctx, r, id); return err }) {
			continue
		}
		aside, err := replace.MoveAside(ctx, r.Backend, name) // a folder cannot be removed
		if aside != "" {
			x.Aside = append(x.Aside, aside)
		}
		if err == nil {
			err = record.Delete(ctx, r, id)
		}
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove a record that cannot be read: %w", err)
		}
		x.Gone = append(x.Gone, name)
		x.Removed++
	}
	return nil
}

// heals reports whether the record in a file was or would be stored again.
func (x *SnapshotRepair) heals(file string) bool {
	id, err := layout.ParseFileID(file)
	return err == nil && slices.Contains(x.Healed, id)
}

// removeRecords removes damaged records that no snapshot needs. A dry run removes nothing.
func removeRecords(ctx context.Context, r *store.Store, dryRun bool) (c store.Cleared, err error) {
	for dir, load := range map[string]func(name string) error{
		layout.SecretsDir: func(name string) error {
			p, err := record.ReadDevicePassword(ctx, r, name)
			clear(p.Password)
			return err
		},
		layout.RunsDir:   func(name string) error { _, err := record.ReadUnfinished(ctx, r, name); return err },
		layout.PrunesDir: func(name string) error { _, err := r.ReadPruneList(ctx, name); return err },
	} {
		names, err := r.NamesIn(ctx, dir)
		if err != nil {
			return c, err
		}
		for _, name := range names {
			if err := c.Clear(ctx, r.Backend, name, dryRun, func() error { return load(name) }); err != nil {
				return c, err
			}
		}
	}
	c.Sort()
	return c, ctx.Err()
}

// rebuild makes the new version of one snapshot.
type rebuild struct {
	c *check.Checker
	s *record.Snapshot

	complete, lost *tree.Builder // nil while nothing is stored
	files          int64
	bytes          int64
	out            RepairedSnapshot
	nodes          []record.LostNode
	changed        bool
}

// run returns nil if nothing has changed.
func (b *rebuild) run(ctx context.Context, dryRun bool) (*RepairedSnapshot, error) {
	// The first pass finds out whether anything changes; the second stores it.
	if err := b.pass(ctx); err != nil {
		return nil, err
	}
	if !b.changed {
		return nil, nil
	}
	if dryRun {
		return &b.out, nil
	}
	r := b.c.Store
	w := writer.New(ctx, r)
	defer w.Close()
	old := record.Outline(ctx, r, b.s)
	b.complete, b.lost = tree.NewBuilder(w.SaveNode, old), tree.NewBuilder(w.SaveNode, old)
	if err := b.pass(ctx); err != nil {
		return nil, err
	}
	root, err := b.complete.Finish(ctx)
	if err != nil {
		return nil, err
	}
	n := record.Successor(r, b.s)
	complete := n.Complete || n.Lost != nil && n.Lost.WasComplete
	n.Root, n.Files, n.Bytes, n.Lost, n.Complete = root, b.files, b.bytes, nil, complete
	if b.out.Files > 0 || b.out.Tree {
		n.Complete = false
		n.Lost = &record.Lost{Time: r.Options.Now().UTC(), WasComplete: complete, Files: b.out.Files, Bytes: b.out.Bytes, Nodes: b.nodes}
		if extra := len(b.nodes) - record.MaxLostNodes; extra > 0 {
			n.Lost.Nodes, n.Lost.MoreNodes = b.nodes[:record.MaxLostNodes], extra
		}
		if b.out.Files > 0 {
			lost, err := b.lost.Finish(ctx)
			if err != nil {
				return nil, err
			}
			n.Lost.Tree = &lost
		}
	}
	n.Problems = b.newProblems(n.Lost)
	if err := w.Finish(ctx); err != nil {
		return nil, err
	}
	if err := record.Replace(ctx, r, b.s, n); err != nil {
		return nil, err
	}
	b.out.New = &n.ID
	return &b.out, nil
}

// pass walks the entries of the snapshot, merged in order with those that it had
// lost before.
func (b *rebuild) pass(ctx context.Context) error {
	t := check.TreeCheck{Checker: b.c, Clean: map[chunk.ID]struct{}{}}
	before, nodes, err := b.s.Lost.Entries(ctx, t.Load)
	if err != nil {
		return err
	}
	b.files, b.bytes, b.nodes = 0, 0, nodes
	b.out = RepairedSnapshot{Affected: check.Affected{Snapshot: b.s.ID, Device: b.s.Device.Name, Time: b.s.Time, Names: []string{}}}
	if b.s.Lost != nil {
		b.changed = b.changed || len(nodes) != len(b.s.Lost.Nodes)
	}
	names := check.TreeCheck{}
	at := 0
	put := func(e *tree.Entry, lostBefore bool) error {
		good, err := t.Entry(ctx, e)
		if err != nil {
			return err
		}
		b.changed = b.changed || good == lostBefore
		if !good {
			b.out.Files++
			b.out.Bytes += e.Content.Size
			names.NameEntry(e)
			if b.lost != nil {
				return b.lost.Add(ctx, e)
			}
			return nil
		}
		if lostBefore {
			b.out.Regained++
		}
		if e.Kind == tree.File {
			b.files++
			b.bytes += sizeInFolder(e)
		}
		if b.complete != nil {
			return b.complete.Add(ctx, e)
		}
		return nil
	}
	w := record.NodeWalk{Load: t.Load}
	w.OnEntry = func(e *tree.Entry) error {
		for ; at < len(before); at++ {
			c := before[at].Key().Compare(e.Key())
			if c == 0 {
				continue // the snapshot has the file, so it is not lost
			}
			if c > 0 {
				break
			}
			if err := put(&before[at], true); err != nil {
				return err
			}
		}
		return put(e, false)
	}
	w.OnLost = func(n record.LostNode, _ error) error {
		b.nodes = append(b.nodes, n)
		b.changed = true
		return nil
	}
	if err := w.Node(ctx, b.s.Root, -1); err != nil {
		return err
	}
	for ; at < len(before); at++ {
		if err := put(&before[at], true); err != nil {
			return err
		}
	}
	b.out.Tree = len(b.nodes) > 0 || b.s.Lost != nil && b.s.Lost.MoreNodes > 0
	b.out.Names = append(b.out.Names, names.Found.Names...)
	return nil
}

// sizeInFolder returns the length of a file in the backup folder.
func sizeInFolder(e *tree.Entry) int64 {
	if e.Encryption != nil {
		return e.Content.Size/16*16 + 16 // padded
	}
	return e.Content.Size
}

// newProblems returns the record's problems, updated with what is lost now.
func (b *rebuild) newProblems(l *record.Lost) []string {
	out := record.WithoutLostNotes(b.s.Problems)
	if l == nil {
		return out
	}
	if b.out.Tree {
		out = append(out, record.LostNote("a part of the file tree"))
	}
	for _, n := range b.out.Names {
		out = append(out, record.LostNote(n))
	}
	if more := l.Files - int64(len(b.out.Names)); more > 0 {
		out = append(out, record.LostNote(words.Plural(more, "more file")))
	}
	return out
}
