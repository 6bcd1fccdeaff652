// Package copy stores snapshots in another repository, which has its own keys.
//
// It decodes every chunk and compares it with its ID. It never changes the source. In the
// target it removes only records that another process has stored at the same time for
// the same snapshot.
package copy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
)

// ErrSameRepository says that source and target are the same repository, or that
// one is an exact copy of the other.
var ErrSameRepository = errors.New("both are the same repository")

// Options are the options of Run.
type Options struct {
	// DryRun stores nothing. The reported sizes are an upper bound: a chunk's ID in
	// the target, and so whether the target has it, is known only after decoding.
	DryRun bool
	// Passwords copies the kept backup passwords of the snapshots' devices, too.
	Passwords bool
	// Progress, if not nil, is called by one goroutine at a time with bytes of
	// content. total grows with each snapshot.
	Progress func(done, total int64)
}

// The outcomes of a snapshot.
const (
	Done    = "copied"
	Present = "present" // it was copied before, or came from the target
	Damaged = "damaged" // it cannot be read, and was left out
)

// Snapshot is one snapshot of a Report.
type Snapshot struct {
	Snapshot layout.FileID  `json:"snapshot"` // in the source
	Copy     *layout.FileID `json:"copy,omitempty"`
	Device   string         `json:"device"`
	Time     time.Time      `json:"time"`
	Outcome  string         `json:"outcome"`
	Text     string         `json:"text,omitempty"` // what is wrong
	NewBytes int64          `json:"new_bytes"`      // of content, before compression

	StoredBytes int64 `json:"stored_bytes"`
}

// Report says what Run did, or would do.
type Report struct {
	Snapshots     []Snapshot `json:"snapshots"`
	Copied        int        `json:"copied"`
	Present       int        `json:"present"`
	Damaged       int        `json:"damaged"`
	NewBytes      int64      `json:"new_bytes"`
	StoredBytes   int64      `json:"stored_bytes"`
	TakenBlocks   int64      `json:"taken_blocks"`   // not encoded again
	EncodedBlocks int64      `json:"encoded_blocks"` // encoded again
	Passwords     int        `json:"passwords"`
	DryRun        bool       `json:"dry_run"`
}

// Run copies snapshots, as repo.Repo.CopyTo describes.
func Run(ctx context.Context, r *store.Store, to *store.Store, list []*record.Snapshot, opts Options) (*Report, error) {
	rep := &Report{Snapshots: []Snapshot{}, DryRun: opts.DryRun}
	if r.Config.ID == to.Config.ID {
		return rep, ErrSameRepository
	}
	c := &copying{from: r, to: to, opts: opts, report: rep, ids: map[chunk.ID]chunk.ID{}, learned: map[layout.FileID]bool{}}
	var err error
	if c.source, _, err = record.List(ctx, r); err != nil {
		return rep, err
	}
	if c.target, _, err = record.List(ctx, to); err != nil {
		return rep, fmt.Errorf("target: %w", err)
	}
	c.seen = map[layout.FileID]bool{}
	for _, s := range c.target {
		c.seen[s.ID] = true
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *record.Snapshot) int { return a.Time.Compare(b.Time) })
	var damage error
	for _, s := range list {
		err := c.snapshot(ctx, s)
		if errors.Is(err, store.ErrDamaged) && ctx.Err() == nil {
			rep.Damaged++
			rep.Snapshots = append(rep.Snapshots, Snapshot{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Outcome: Damaged, Text: err.Error()})
			damage = fmt.Errorf("copy snapshot %s: %w", s.ID.Short(), err)
			continue
		}
		if err != nil {
			return rep, fmt.Errorf("copy snapshot %s: %w", s.ID.Short(), err)
		}
	}
	if opts.Passwords && !opts.DryRun {
		if err := c.passwords(ctx, list); err != nil {
			return rep, err
		}
	}
	return rep, damage
}

// copying is one Run.
type copying struct {
	from, to       *store.Store
	source, target []*record.Snapshot
	opts           Options
	report         *Report
	learned        map[layout.FileID]bool // snapshots whose chunks are in ids
	seen           map[layout.FileID]bool // records of the target that were read

	mu          sync.Mutex            // guards the fields below while blocks are copied
	ids         map[chunk.ID]chunk.ID // from the source's IDs to the target's, for content in the target
	done, total int64                 // bytes
}

// origin identifies a snapshot across all of its copies.
func origin(r *store.Store, s *record.Snapshot) record.Origin {
	if s.CopiedFrom != nil {
		return *s.CopiedFrom
	}
	return record.Origin{Repository: r.Config.ID, Snapshot: s.FirstID(), Root: s.Root}
}

// copyOf returns the target's copy of a snapshot, or nil. It compares roots, too:
// a record whose labels were changed has another ID but the same content.
func (c *copying) copyOf(s *record.Snapshot) *record.Snapshot {
	want := origin(c.from, s)
	for _, o := range c.target {
		have := origin(c.to, o)
		if have.Repository != want.Repository {
			continue
		}
		if have.Snapshot == want.Snapshot || have.Root == want.Root && o.Time.Equal(s.Time) && record.SameDevice(o.Device.UDID, s.Device.UDID) {
			return o
		}
	}
	return nil
}

// snapshot copies one snapshot.
func (c *copying) snapshot(ctx context.Context, s *record.Snapshot) error {
	line := Snapshot{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Outcome: Done}
	have, err := c.currentCopyOf(ctx, s)
	if err != nil {
		return err
	}
	if have != nil {
		c.present(&line, have)
		return nil
	}
	parent := c.parent(s)
	if parent != nil {
		if err := c.learnIDs(ctx, parent, c.copyOf(parent)); err != nil {
			return err
		}
	}
	need, err := c.need(ctx, s)
	if err != nil {
		return err
	}
	if c.opts.DryRun {
		for id, size := range need {
			line.NewBytes += int64(size)
			c.ids[id] = id // count it once
		}
		c.copied(&line)
		return nil
	}
	w, err := c.copyContent(ctx, need)
	if err != nil {
		return err
	}
	defer w.Close()
	copied := c.newRecord(s)
	var previous *record.Snapshot
	if parent != nil {
		previous = c.copyOf(parent)
	}
	if copied.Root, err = c.tree(ctx, w, s, previous); err != nil {
		return err
	}
	if have, err = c.currentCopyOf(ctx, s); err != nil {
		return err
	}
	if have != nil {
		c.present(&line, have) // a prune removes the stored chunks if nothing needs them
		return nil
	}
	if err := w.Commit(ctx, &copied); err != nil {
		return err
	}
	c.target = append(c.target, &copied)
	c.seen[copied.ID] = true
	c.learned[s.ID] = true
	if have, err = c.removeDuplicates(ctx, s, &copied); err != nil {
		return err
	}
	if have != &copied {
		c.present(&line, have)
		return nil
	}
	line.Copy, line.NewBytes, line.StoredBytes = &copied.ID, copied.NewBytes, copied.StoredBytes
	c.copied(&line)
	return nil
}

// newRecord returns the target's record of a snapshot, without its root.
func (c *copying) newRecord(s *record.Snapshot) record.Snapshot {
	n := *s
	from := origin(c.from, s)
	n.CopiedFrom = &from
	n.Original, n.Former, n.Changed = nil, nil, nil // they are about the source's record
	n.Parent = nil
	if s.Parent == nil {
		return n
	}
	for _, p := range c.source {
		if !p.Has(*s.Parent) {
			continue
		}
		if o := c.copyOf(p); o != nil {
			n.Parent = &o.ID
		}
	}
	return n
}

// copied adds a copied snapshot to the report.
func (c *copying) copied(line *Snapshot) {
	c.report.Copied++
	c.report.NewBytes += line.NewBytes
	c.report.StoredBytes += line.StoredBytes
	c.report.Snapshots = append(c.report.Snapshots, *line)
}

// parent returns a snapshot of the same device that the target has a copy of, or
// nil: the one that probably has most chunks in common with s.
func (c *copying) parent(s *record.Snapshot) *record.Snapshot {
	var best *record.Snapshot
	for _, p := range c.source {
		if !record.SameDevice(p.Device.UDID, s.Device.UDID) || !c.from.Index.Has(p.Root) {
			continue
		}
		// A copy stored after the index was loaded cannot be read.
		if o := c.copyOf(p); o == nil || !c.to.Index.Has(o.Root) {
			continue
		}
		if s.Parent != nil && p.Has(*s.Parent) {
			return p
		}
		// Prefer the latest earlier snapshot, then the earliest later one.
		if best == nil || !p.Time.After(s.Time) || best.Time.After(s.Time) && p.Time.Before(best.Time) {
			best = p
		}
	}
	return best
}

// need returns the chunks of a snapshot's files that are not known to be in the
// target, with their lengths.
func (c *copying) need(ctx context.Context, s *record.Snapshot) (map[chunk.ID]uint32, error) {
	need := map[chunk.ID]uint32{}
	err := record.Walk(ctx, c.from, s, "", func(e *tree.Entry) error {
		return e.Content.Chunks(ctx, c.from.Chunk, func(id chunk.ID) error {
			if to, known := c.ids[id]; known && (c.opts.DryRun || c.to.Index.Reusable(to)) {
				return nil
			}
			size, ok := c.from.Index.Size(id)
			if !ok {
				return &store.DamageError{File: "", Err: fmt.Errorf("chunk %s is in no index", id.Short())}
			}
			if _, twice := need[id]; !twice {
				need[id] = size
				c.total += int64(size)
			}
			return nil
		})
	})
	return need, store.TreeDamage(err)
}

// tree stores a snapshot's tree with the target's chunk IDs. It encodes nodes as
// deltas to those of previous.
func (c *copying) tree(ctx context.Context, w *writer.Writer, s, previous *record.Snapshot) (chunk.ID, error) {
	var old *tree.Outline
	if previous != nil {
		old = record.Outline(ctx, c.to, previous)
	}
	b := tree.NewBuilder(w.SaveNode, old)
	err := record.Walk(ctx, c.from, s, "", func(e *tree.Entry) error {
		ids := make([]chunk.ID, 0, len(e.Content.IDs))
		err := e.Content.Chunks(ctx, c.from.Chunk, func(id chunk.ID) error {
			to, ok := c.ids[id]
			if !ok {
				return fmt.Errorf("chunk %s was not copied", id.Short())
			}
			ids = append(ids, to)
			return nil
		})
		if err != nil {
			return err
		}
		entry := *e
		if entry.Content, err = tree.NewContent(ctx, w.SaveNode, e.Content.Size, ids); err != nil {
			return err
		}
		return b.Add(ctx, &entry)
	})
	if err != nil {
		return chunk.ID{}, store.TreeDamage(err)
	}
	return b.Finish(ctx)
}

// passwords copies the backup passwords that are kept for the snapshots' devices.
func (c *copying) passwords(ctx context.Context, list []*record.Snapshot) error {
	seen := map[string]bool{}
	for _, s := range list {
		udid := record.PlainUDID(s.Device.UDID)
		if seen[udid] {
			continue
		}
		seen[udid] = true
		kept, err := record.DevicePasswords(ctx, c.from, s.Device.UDID)
		if err != nil {
			return err
		}
		slices.Reverse(kept) // store the newest last, so that it is the newest there, too
		for _, p := range kept {
			if err == nil {
				err = record.KeepDevicePassword(ctx, c.to, p.UDID, p.Password)
			}
			clear(p.Password)
			if err == nil {
				c.report.Passwords++
			}
		}
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}
