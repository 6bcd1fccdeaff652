package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/check"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
)

// RepairedSnapshot is a snapshot of which RepairSnapshots makes a new version.
type RepairedSnapshot struct {
	check.Incomplete                // what is lost now
	New              *layout.FileID `json:"new,omitempty"` // the new record; nil in a dry run
	Regained         int64          `json:"regained"`      // files that had been lost and are whole again
	Bytes            int64          `json:"bytes"`         // of the lost files
}

// SnapshotRepair says what RepairSnapshots has found and done, or would do.
type SnapshotRepair struct {
	Snapshots int                `json:"snapshots"`
	Repaired  []RepairedSnapshot `json:"repaired"`
	// Damaged are records that nobody can read: what they had is not known.
	Damaged []string `json:"damaged"`
	Removed int      `json:"removed_records"`
}

// SnapshotRepairOptions say how RepairSnapshots goes about it.
type SnapshotRepairOptions struct {
	RepairOptions
	// RemoveDamaged removes records that cannot be read. Without a copy these
	// snapshots are lost anyway, and as long as the records are there nothing
	// can be pruned.
	RemoveDamaged bool
}

// Snapshots makes new versions of incomplete snapshots, as
// repo.Repo.RepairSnapshots describes.
func Snapshots(ctx context.Context, r *store.Store, opts SnapshotRepairOptions) (*SnapshotRepair, error) {
	if err := Begin(ctx, r, opts.DryRun); err != nil {
		return nil, err
	}
	c, err := check.Find(ctx, r, check.Options{ReadData: 1, DryRun: opts.DryRun, Progress: func(done, total int64) { opts.Tell("reading packs", done, total) }})
	if err != nil {
		return nil, err
	}
	rep := &SnapshotRepair{Snapshots: len(c.Snapshots), Repaired: []RepairedSnapshot{}, Damaged: []string{}}
	for _, err := range c.DamagedSnapshots {
		var d *store.DamageError
		if errors.As(err, &d) {
			rep.Damaged = append(rep.Damaged, d.File)
		}
	}
	suffers := map[layout.FileID]bool{}
	for _, s := range c.Report.Incomplete {
		suffers[s.Snapshot] = true
	}
	// What a change or a repair that was cut off has left to do, unless the old
	// record may be the better one.
	for _, s := range c.Superseded {
		newer := slices.IndexFunc(c.Snapshots, func(o *record.Snapshot) bool { return o.FirstID() == s.FirstID() })
		if opts.DryRun || newer >= 0 && suffers[c.Snapshots[newer].ID] {
			continue
		}
		// Not Forget, which means all records of the snapshot.
		if err := record.Delete(ctx, r, s.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return rep, err
		}
	}
	for i, s := range c.Snapshots {
		opts.Tell("repairing snapshots", int64(i), int64(len(c.Snapshots)))
		if !suffers[s.ID] && s.Lost == nil {
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
	if !opts.RemoveDamaged || opts.DryRun {
		return rep, nil
	}
	for _, name := range rep.Damaged {
		if err := r.Backend.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return rep, fmt.Errorf("remove a record that cannot be read: %w", err)
		}
		rep.Removed++
	}
	return rep, nil
}

// rebuild makes the new version of one snapshot.
type rebuild struct {
	c *check.Checker
	s *record.Snapshot

	whole, lost *tree.Builder // nil if nothing is stored
	files       int64
	bytes       int64
	out         RepairedSnapshot
	nodes       []record.LostNode
	changed     bool
}

// run returns nil if there is nothing to do.
func (b *rebuild) run(ctx context.Context, dryRun bool) (*RepairedSnapshot, error) {
	// Once to see what there is to do, and once to do it.
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
	b.whole, b.lost = tree.NewBuilder(w.SaveNode, old), tree.NewBuilder(w.SaveNode, old)
	if err := b.pass(ctx); err != nil {
		return nil, err
	}
	root, err := b.whole.Finish(ctx)
	if err != nil {
		return nil, err
	}
	n := record.Successor(r, b.s)
	complete := n.Complete || n.Lost != nil && n.Lost.Complete
	n.Root, n.Files, n.Bytes, n.Lost, n.Complete = root, b.files, b.bytes, nil, complete
	if b.out.Files > 0 || b.out.Tree {
		n.Complete = false
		n.Lost = &record.Lost{Time: r.Options.Now().UTC(), Complete: complete, Files: b.out.Files, Bytes: b.out.Bytes, Nodes: b.nodes}
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
	n.Problems = b.problems(n.Lost)
	if err := w.Finish(ctx); err != nil {
		return nil, err
	}
	if err := record.Replace(ctx, r, b.s, n); err != nil {
		return nil, err
	}
	b.out.New = &n.ID
	return &b.out, nil
}

// pass goes through the entries of the snapshot and of what it had lost before.
func (b *rebuild) pass(ctx context.Context) error {
	t := check.TreeCheck{Checker: b.c, Clean: map[chunk.ID]struct{}{}}
	before, nodes, err := b.s.Lost.Entries(ctx, t.Load)
	if err != nil {
		return err
	}
	b.files, b.bytes, b.nodes = 0, 0, nodes
	b.out = RepairedSnapshot{Incomplete: check.Incomplete{Snapshot: b.s.ID, Device: b.s.Device.Name, Time: b.s.Time, Names: []string{}}}
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
		if b.whole != nil {
			return b.whole.Add(ctx, e)
		}
		return nil
	}
	w := record.NodeWalk{Load: t.Load}
	w.OnEntry = func(e *tree.Entry) error {
		for ; at < len(before); at++ {
			c := before[at].Key().Compare(e.Key())
			if c == 0 {
				continue // it is there, so it is not lost
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

// sizeInFolder is the length of a file in the backup folder.
func sizeInFolder(e *tree.Entry) int64 {
	if e.Encryption != nil {
		return e.Content.Size/16*16 + 16 // padded
	}
	return e.Content.Size
}

// lostNote begins the problems that repairs write.
const lostNote = "lost by the repository: "

// problems are those of the record, with what is lost now.
func (b *rebuild) problems(l *record.Lost) []string {
	out := slices.DeleteFunc(slices.Clone(b.s.Problems), func(p string) bool { return len(p) >= len(lostNote) && p[:len(lostNote)] == lostNote })
	if l == nil {
		return out
	}
	if b.out.Tree {
		out = append(out, lostNote+"part of the list of files")
	}
	for _, n := range b.out.Names {
		out = append(out, lostNote+n)
	}
	if more := l.Files - int64(len(b.out.Names)); more > 0 {
		out = append(out, fmt.Sprintf("%s%d more files", lostNote, more))
	}
	return out
}
