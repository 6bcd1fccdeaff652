// Package copy stores snapshots in another repository, which has its own keys.
//
// It decodes every chunk and compares it with its ID. It never changes the source. In
// the target it removes only records: second copies of a snapshot, which appear if several
// processes copy it at the same time, or if the record of the first copy could not be
// read for a while; and records that lack files, after better ones have replaced them.
package copy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
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
	Done       = "copied"
	Present    = "present"    // it was copied before, or came from the target
	Healed     = "healed"     // it was present, but incomplete, and is whole again
	Incomplete = "incomplete" // it is present, but incomplete, and the source lacks the same
	Damaged    = "damaged"    // it cannot be read, and was left out
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
	Healed        int        `json:"healed"`
	Incomplete    int        `json:"incomplete"`
	Damaged       int        `json:"damaged"`
	NewBytes      int64      `json:"new_bytes"`
	StoredBytes   int64      `json:"stored_bytes"`
	TakenBlocks   int64      `json:"taken_blocks"`   // copied without encoding them again
	EncodedBlocks int64      `json:"encoded_blocks"` // encoded again
	Passwords     int        `json:"passwords"`
	Certificates  int        `json:"certificates"`
	// TargetDamaged are records of the target that cannot be read. Each of them may be
	// the copy of a snapshot that was copied once more.
	TargetDamaged []string `json:"target_damaged"`
	// Unread are certificates of the source that cannot be used, so they were not copied.
	Unread []string `json:"unread,omitempty"`
	DryRun bool     `json:"dry_run"`
}

// add adds the line of a snapshot.
func (r *Report) add(line Snapshot) {
	switch line.Outcome {
	case Done:
		r.Copied++
	case Present:
		r.Present++
	case Healed:
		r.Healed++
	case Incomplete:
		r.Incomplete++
	default:
		r.Damaged++
	}
	r.NewBytes += line.NewBytes
	r.StoredBytes += line.StoredBytes
	r.Snapshots = append(r.Snapshots, line)
}

// Run copies snapshots, as repo.Repo.CopyTo describes.
func Run(ctx context.Context, r *store.Store, to *store.Store, list []*record.Snapshot, opts Options) (*Report, error) {
	rep := &Report{Snapshots: []Snapshot{}, TargetDamaged: []string{}, DryRun: opts.DryRun}
	if r.Config.ID == to.Config.ID {
		return rep, ErrSameRepository
	}
	if to.HasUnlisted() {
		// A copy must not rely on packs that no index file lists, since a prune may remove
		// them. If an index file is missing, this stores again what it listed.
		if err := to.LoadListed(ctx); err != nil {
			return rep, fmt.Errorf("target: %w", err)
		}
	}
	c := &copying{from: r, to: to, opts: opts, report: rep, ids: map[chunk.ID]chunk.ID{}, learned: map[layout.FileID]bool{}, indexed: map[layout.FileID]bool{}}
	var err error
	if c.source, _, err = record.List(ctx, r); err != nil {
		return rep, err
	}
	all, err := record.ReadAll(ctx, to)
	if err != nil {
		return rep, fmt.Errorf("target: %w", err)
	}
	for _, err := range all.Damaged {
		var d *store.DamageError
		if errors.As(err, &d) {
			rep.TargetDamaged = append(rep.TargetDamaged, d.File)
		}
	}
	c.target, c.superseded, c.seen = all.Current, all.Superseded, map[layout.FileID]bool{}
	for _, s := range slices.Concat(all.Current, all.Superseded) {
		c.seen[s.ID] = true
	}
	c.judgeAnew()
	if err := c.readCertificates(ctx); err != nil {
		return rep, err
	}
	list = c.dated(list)
	slices.SortStableFunc(list, func(a, b *record.Snapshot) int { return a.Time.Compare(b.Time) })
	var damage error
	for _, s := range list {
		line, err := c.copySnapshot(ctx, s)
		if err != nil {
			err = fmt.Errorf("copy snapshot %s: %w", s.ID.Short(), err)
			if !record.Damaged(ctx, err) {
				return rep, err
			}
			damage = err
		}
		rep.add(line)
	}
	if opts.Passwords && !opts.DryRun {
		if err := c.copyPasswords(ctx, list); err != nil {
			return rep, err
		}
	}
	return rep, damage
}

// copying is one Run.
type copying struct {
	from, to       *store.Store
	source, target []*record.Snapshot
	superseded     []*record.Snapshot // of the target
	opts           Options
	report         *Report
	learned        map[layout.FileID]bool     // snapshots whose chunks are in ids
	seen           map[layout.FileID]bool     // records of the target that were read
	indexed        map[layout.FileID]bool     // of these, those that were read before the target's index
	trees          *record.Wholeness          // of the target
	incomplete     map[layout.FileID]bool     // records of the target that were incomplete before any was healed; nil until findIncomplete has run
	certified      []*certificate.Certificate // of the source
	hasCertificate map[made]bool              // certificates of the target

	mu          sync.Mutex            // guards the fields below while blocks are copied
	ids         map[chunk.ID]chunk.ID // from the source's IDs to the target's, for content in the target
	done, total int64                 // bytes
}

// dated replaces the snapshots in a list by those of the complete list of the source:
// only a comparison with the other snapshots may show that a date is wrong, and correct
// it.
func (c *copying) dated(list []*record.Snapshot) []*record.Snapshot {
	list = slices.Clone(list)
	for i, s := range list {
		if at := slices.IndexFunc(c.source, func(o *record.Snapshot) bool { return o.ID == s.ID }); at >= 0 {
			list[i] = c.source[at]
		}
	}
	return list
}

// origin identifies a snapshot across all of its copies.
func origin(r *store.Store, s *record.Snapshot) record.Origin {
	if s.CopiedFrom != nil {
		return *s.CopiedFrom
	}
	return record.Origin{Repository: r.Config.ID, Snapshot: s.FirstID(), Root: s.Root}
}

// copyOf returns the target's copy of a snapshot, or nil. Of several it prefers one that
// lists no files as lost.
//
// The same content is not enough: two imports of one backup are two snapshots, each with
// labels of its own.
func (c *copying) copyOf(s *record.Snapshot) (found *record.Snapshot) {
	want := origin(c.from, s)
	for _, o := range c.target {
		have := origin(c.to, o)
		// Older programs named the ID that the snapshot had when it was copied.
		same := have.Snapshot == want.Snapshot || s.CopiedFrom == nil && s.Has(have.Snapshot) || o.CopiedFrom == nil && o.Has(want.Snapshot)
		if have.Repository != want.Repository || !same {
			continue
		}
		if o.Lost == nil {
			return o
		}
		found = cmp.Or(found, o)
	}
	return found
}

// copySnapshot copies one snapshot, or heals its copy. The line is complete even if the
// error is damage.
func (c *copying) copySnapshot(ctx context.Context, s *record.Snapshot) (line Snapshot, err error) {
	line = Snapshot{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Outcome: Done}
	have := c.copyOf(s)
	if have == nil {
		have, err = c.currentCopyOf(ctx, s)
	}
	switch {
	case err != nil:
	case have == nil:
		err = c.copyNew(ctx, s, &line)
	default:
		err = c.keepCopy(ctx, s, have, &line)
	}
	if record.Damaged(ctx, err) {
		line.Text = err.Error()
		if line.Outcome != Incomplete {
			line.Outcome = Damaged
		}
	}
	return line, err
}

// copyNew copies a snapshot that the target lacks.
func (c *copying) copyNew(ctx context.Context, s *record.Snapshot, line *Snapshot) error {
	parent := c.findParent(s)
	if parent != nil {
		if err := c.learnIDs(ctx, parent, c.copyOf(parent)); err != nil {
			return err
		}
	}
	fail := func(err error) error { return err }
	need, err := c.neededChunks(ctx, s, fail)
	if err != nil {
		return err
	}
	if c.opts.DryRun {
		c.forecast(line, need)
		return nil
	}
	w, err := c.copyContent(ctx, need, fail)
	if err != nil {
		return err
	}
	defer w.Close()
	copied := c.newRecord(s)
	var previous *record.Snapshot
	if parent != nil {
		previous = c.copyOf(parent)
	}
	if copied.Root, err = c.copyTree(ctx, w.SaveNode, s, previous); err != nil {
		return err
	}
	have, err := c.currentCopyOf(ctx, s)
	if err != nil {
		return err
	}
	if have != nil {
		line.present(have) // a prune removes the stored chunks if nothing needs them
		return c.copyCertificates(ctx, s, have)
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
		line.present(have)
		return c.copyCertificates(ctx, s, have)
	}
	line.Copy, line.NewBytes, line.StoredBytes = &copied.ID, copied.NewBytes, copied.StoredBytes
	return c.copyCertificates(ctx, s, have)
}

// present says that the target has a snapshot already.
func (l *Snapshot) present(have *record.Snapshot) { l.Outcome, l.Copy = Present, &have.ID }

// forecast says in a dry run how much content would be copied, and counts it only once.
func (c *copying) forecast(line *Snapshot, need map[chunk.ID]uint32) {
	for id, size := range need {
		line.NewBytes += int64(size)
		c.ids[id] = id
	}
}

// newRecord returns the target's record of a snapshot, without its root.
func (c *copying) newRecord(s *record.Snapshot) record.Snapshot {
	n := s.Transfer(c.target)
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

// findParent looks for other snapshots of the same device that the target has copies of. It
// returns the one that probably has most chunks in common with s, or nil if there are
// none.
func (c *copying) findParent(s *record.Snapshot) *record.Snapshot {
	var best *record.Snapshot
	for _, p := range c.source {
		if p.ID == s.ID || !record.SameDevice(p.Device.UDID, s.Device.UDID) || !c.from.Index.Has(p.Root) {
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

// neededChunks returns the chunks of a snapshot's files that are not known to be in the
// target, with their lengths. It calls lost for each damage that it meets, and goes on if
// lost returns nil.
func (c *copying) neededChunks(ctx context.Context, s *record.Snapshot, lost func(error) error) (map[chunk.ID]uint32, error) {
	need := map[chunk.ID]uint32{}
	w := record.NodeWalk{Load: c.from.Chunk, Seen: map[chunk.ID]bool{}}
	w.OnLost = func(_ record.LostNode, err error) error { return lost(store.TreeDamage(err)) }
	w.OnEntry = func(e *tree.Entry) error {
		err := e.Content.All(ctx, c.from.Chunk, nil, func(id chunk.ID) error {
			if to, known := c.ids[id]; known && (c.opts.DryRun || c.to.Index.Reusable(to)) {
				return nil
			}
			size, ok := c.from.Index.Size(id)
			if !ok {
				return lost(c.from.UnknownChunk(id))
			}
			if _, twice := need[id]; !twice {
				need[id] = size
				c.total += int64(size)
			}
			return nil
		})
		if record.Damaged(ctx, err) {
			return lost(store.TreeDamage(err))
		}
		return err
	}
	return need, w.Node(ctx, s.Root, -1)
}

// copyTree stores a snapshot's tree with the target's chunk IDs. It encodes nodes as
// deltas to those of previous.
func (c *copying) copyTree(ctx context.Context, save tree.Save, s, previous *record.Snapshot) (chunk.ID, error) {
	var old *tree.Outline
	if previous != nil {
		old = record.Outline(ctx, c.to, previous)
	}
	b := tree.NewBuilder(save, old)
	err := record.Walk(ctx, c.from, s, "", func(e *tree.Entry) error {
		ids := make([]chunk.ID, 0, len(e.Content.IDs))
		err := e.Content.Chunks(ctx, c.from.Chunk, func(id chunk.ID) error {
			to, ok := c.ids[id]
			if !ok {
				return fmt.Errorf("chunk %s was not copied", id.Short())
			}
			if ids = append(ids, to); len(ids) > store.MaxChunks {
				return store.ErrTooManyChunks
			}
			return nil
		})
		if err != nil {
			return err
		}
		entry := *e
		if entry.Content, err = tree.NewContent(ctx, save, e.Content.Size, ids); err != nil {
			return err
		}
		return b.Add(ctx, &entry)
	})
	if err != nil {
		return chunk.ID{}, store.TreeDamage(err)
	}
	return b.Finish(ctx)
}

// copyPasswords copies the backup passwords that are kept for the snapshots' devices.
func (c *copying) copyPasswords(ctx context.Context, list []*record.Snapshot) error {
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
