// Package copy stores snapshots in another repository, which has its own keys.
//
// It decodes every chunk and compares it with its ID. The source is only read.
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

// ErrSameRepository says that a repository was to be copied into itself, or into
// an exact copy of it.
var ErrSameRepository = errors.New("both are the same repository")

// Options are what CopyTo takes beside snapshots.
type Options struct {
	// DryRun only looks. What the target has under other keys is not known
	// without decoding it, so the forecast is an upper bound.
	DryRun bool
	// Passwords copies the kept backup passwords of the snapshots' devices, too.
	Passwords bool
	// Progress is told what is done and what there is to do, in bytes of
	// content; by one goroutine at a time. There is more to do with every
	// snapshot that is looked at.
	Progress func(done, total int64)
}

// What became of a snapshot that was to be copied.
const (
	Done    = "copied"
	Present = "present" // it had been copied before, or it came from there
	Damaged = "damaged" // it cannot be read, and was left out
)

// Snapshot is one snapshot of a CopyReport.
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

// Report says what CopyTo has done.
type Report struct {
	Snapshots     []Snapshot `json:"snapshots"`
	Copied        int        `json:"copied"`
	Present       int        `json:"present"`
	Damaged       int        `json:"damaged"`
	NewBytes      int64      `json:"new_bytes"`
	StoredBytes   int64      `json:"stored_bytes"`
	TakenBlocks   int64      `json:"taken_blocks"`   // encoded as they were in the source
	EncodedBlocks int64      `json:"encoded_blocks"` // that had to be encoded anew
	Passwords     int        `json:"passwords"`
	DryRun        bool       `json:"dry_run"`
}

// Run copies snapshots, as repo.Repo.CopyTo describes.
func Run(ctx context.Context, r *store.Store, to *store.Store, list []*record.Snapshot, opts Options) (*Report, error) {
	rep := &Report{Snapshots: []Snapshot{}, DryRun: opts.DryRun}
	if r.Config.ID == to.Config.ID {
		return rep, ErrSameRepository
	}
	c := &copying{from: r, to: to, opts: opts, report: rep, ids: map[chunk.ID]chunk.ID{}, primed: map[layout.FileID]bool{}}
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

// copying is a CopyTo.
type copying struct {
	from, to       *store.Store
	source, target []*record.Snapshot
	opts           Options
	report         *Report
	primed         map[layout.FileID]bool // snapshots whose chunks are in ids
	seen           map[layout.FileID]bool // records of the target that were looked at

	mu          sync.Mutex            // guards what follows while blocks are copied
	ids         map[chunk.ID]chunk.ID // of content: there by here; the target has it
	done, total int64                 // bytes
}

// origin returns what a snapshot is, wherever it went.
func origin(r *store.Store, s *record.Snapshot) record.Origin {
	if s.CopiedFrom != nil {
		return *s.CopiedFrom
	}
	return record.Origin{Repository: r.Config.ID, Snapshot: s.FirstID(), Root: s.Root}
}

// copyOf finds the target's copy of a snapshot, nil if there is none. A record
// that was changed since (by a tag) has another ID and the same content.
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
	have, err := c.copyNow(ctx, s)
	if err != nil {
		return err
	}
	if have != nil {
		c.present(&line, have)
		return nil
	}
	parent := c.parent(s)
	if parent != nil {
		if err := c.prime(ctx, parent, c.copyOf(parent)); err != nil {
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
			c.ids[id] = id // so that it counts once
		}
		c.copied(&line)
		return nil
	}
	w, err := c.content(ctx, need)
	if err != nil {
		return err
	}
	defer w.Close()
	copied := c.newRecord(s)
	var like *record.Snapshot
	if parent != nil {
		like = c.copyOf(parent)
	}
	if copied.Root, err = c.tree(ctx, w, s, like); err != nil {
		return err
	}
	if have, err = c.copyNow(ctx, s); err != nil {
		return err
	}
	if have != nil {
		c.present(&line, have) // what was stored serves others, or is pruned
		return nil
	}
	if err := w.Commit(ctx, &copied); err != nil {
		return err
	}
	c.target = append(c.target, &copied)
	c.seen[copied.ID] = true
	c.primed[s.ID] = true
	if have, err = c.settle(ctx, s, &copied); err != nil {
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
	n.Original, n.Former, n.Changed = nil, nil, nil // IDs and changes of the source's record
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

// copied reports a snapshot that was copied.
func (c *copying) copied(line *Snapshot) {
	c.report.Copied++
	c.report.NewBytes += line.NewBytes
	c.report.StoredBytes += line.StoredBytes
	c.report.Snapshots = append(c.report.Snapshots, *line)
}

// parent returns the snapshot of the same device that the target has a copy of
// and that is likely to share most with s; nil if there is none.
func (c *copying) parent(s *record.Snapshot) *record.Snapshot {
	var best *record.Snapshot
	for _, p := range c.source {
		if !record.SameDevice(p.Device.UDID, s.Device.UDID) || !c.from.Index.Has(p.Root) {
			continue
		}
		// What was stored since the indexes were loaded cannot be read.
		if o := c.copyOf(p); o == nil || !c.to.Index.Has(o.Root) {
			continue
		}
		if s.Parent != nil && p.Has(*s.Parent) {
			return p
		}
		// The last one before, or else the first one behind.
		if best == nil || !p.Time.After(s.Time) || best.Time.After(s.Time) && p.Time.Before(best.Time) {
			best = p
		}
	}
	return best
}

// need returns the chunks of a snapshot's files that are not known to be on the
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

// tree stores a snapshot's tree in the target, whose chunk IDs it has then. Its
// nodes are stored as differences to those of like.
func (c *copying) tree(ctx context.Context, w *writer.Writer, s, like *record.Snapshot) (chunk.ID, error) {
	var old *tree.Outline
	if like != nil {
		old = record.Outline(ctx, c.to, like)
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
		slices.Reverse(kept) // so that the newest is the newest there, too
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
