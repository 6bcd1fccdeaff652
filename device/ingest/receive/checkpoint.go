package receive

import (
	"context"
	"slices"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// checkpoint holds the record of a running backup and what the record still
// lacks.
//
// Received files are added to the record while the device says "uploading".
// Once the device says "moving", the record is frozen. It then has all files,
// both manifests and the Status.plist that says "moving", as they were before any
// file was moved.
// If the backup is interrupted later, the next one continues from this record,
// and the device moves and removes the files again.
type checkpoint struct {
	record  *repo.Unfinished
	pending []string // received paths that are not in the record yet
	bytes   int64    // received since the record was saved
	last    time.Time
	frozen  bool // the device has begun to move files

	unsaved  int  // number of paths removed from the record since new paths were last saved
	all      bool // the next save writes all paths
	allLater bool // the save before files are moved writes all paths, since the record lacks some
}

const (
	// maxPending bounds the paths that wait for a checkpoint.
	maxPending = 1 << 16
	// maxUnsaved bounds how many paths are removed from the record one by one.
	// Each removal writes the record.
	maxUnsaved = 256
	// maxParts is the number of parts at which a record's parts are merged.
	maxParts = 1 << 12
)

// note adds a path to the next checkpoint.
func (r *Receiver) note(path string) {
	if !r.checkpoint.frozen {
		r.checkpoint.pending = append(r.checkpoint.pending, path)
	}
}

// changing is called before the file at a path changes. It removes a blob's
// path from the record: if this backup is interrupted, the next one must not
// show the device an outdated version of the file.
func (r *Receiver) changing(ctx context.Context, path string) error {
	c := &r.checkpoint
	if c.frozen {
		return nil
	}
	number, ok := r.names.Number(path)
	if !ok {
		if _, dir := r.names.Dir(path); dir || path == "" {
			return r.unsaveAll(ctx)
		}
		return nil
	}
	f := r.names.File(number)
	if f.Spooled() {
		// The spool's index lists the file, even if the record does not count it yet,
		// so it must be removed from the index.
		f.State &^= saved
		return r.spool.Forget(path)
	}
	if f.State&saved == 0 || !needsKey(path) {
		return nil
	}
	f.State &^= saved
	if c.unsaved++; c.unsaved > maxUnsaved {
		c.all = true
		return r.unsaveParts(ctx)
	}
	c.record.Removed = append(c.record.Removed, path)
	return r.saveRecord(ctx)
}

// unsaveAll durably empties the record and the index of the spool.
func (r *Receiver) unsaveAll(ctx context.Context) error {
	r.checkpoint.all = false
	if r.spool != nil {
		if err := r.spool.ForgetAll(); err != nil {
			return r.fail(err)
		}
		for f := range r.names.All() {
			f.State &^= saved
		}
	}
	return r.unsaveParts(ctx)
}

// unsaveParts durably empties the record. Files in the spool stay.
func (r *Receiver) unsaveParts(ctx context.Context) error {
	for f := range r.names.All() {
		if !f.Spooled() {
			f.State &^= saved
		}
	}
	u := r.checkpoint.record
	if len(u.Parts) == 0 {
		return nil
	}
	u.Parts, u.Removed, u.Files, u.Bytes = nil, nil, 0, 0
	return r.saveRecord(ctx)
}

func (r *Receiver) saveRecord(ctx context.Context) error {
	r.checkpoint.record.SetStats(r.stats)
	list := r.complaints.list()
	r.checkpoint.record.Complaints = list[:min(len(list), repo.MaxComplaints)]
	if err := r.repo.SaveUnfinished(ctx, r.checkpoint.record); err != nil {
		return r.fail(err)
	}
	return nil
}

// setStatus is called when the device has sent a Status.plist.
func (r *Receiver) setStatus(ctx context.Context, s status) error {
	before := r.status
	s.full = s.full || before.full && before.run == s.run
	r.status = s
	c := &r.checkpoint
	switch {
	case before.run != "" && before.run != s.run && r.resumed != (Resumed{}):
		// The device does not continue the interrupted backup. Whether it sends all
		// files again is known only when it moves them. Until then the record has only
		// the files of this backup.
		if err := r.unsaveParts(ctx); err != nil {
			return err
		}
		c.frozen, c.allLater, c.pending = false, true, []string{mobilesync.StatusPlist}
	case c.frozen:
		return nil
	}
	if s.state == stateMoving {
		// All files and both manifests were received.
		c.all = c.all || c.allLater
		if err := r.save(ctx); err != nil {
			return err
		}
		c.frozen = true
		return nil
	}
	return r.saveIfDue(ctx)
}

func (r *Receiver) saveIfDue(ctx context.Context) error {
	if !r.due() {
		return nil
	}
	return r.save(ctx)
}

// due reports whether a checkpoint is worth its cost: a few small packs, an index
// file, and flushing.
func (r *Receiver) due() bool {
	c := &r.checkpoint
	before := r.bytes - c.bytes
	switch {
	case c.all, len(c.pending) >= maxPending, r.opts.Now().Sub(c.last) >= r.opts.CheckpointTime:
		return true
	case c.bytes >= min(r.opts.CheckpointBytes, max(firstCheckpoint, before)):
		return true
	}
	return r.spool != nil && c.record.ID == repo.FileID{} && c.bytes >= firstSpooled
}

// rotate makes everything that was stored durable, and begins a new writer.
func (r *Receiver) rotate(ctx context.Context) error {
	if r.broken != nil {
		return r.broken
	}
	err := r.await(ctx, func() error {
		if err := r.content.Flush(r.ctx); err != nil {
			return err
		}
		return r.writer.Finish(r.ctx)
	})
	if err != nil {
		return r.fail(err)
	}
	r.stats = r.stats.Add(r.writer.Stats())
	r.stored = r.names.Stored()
	r.openWriter()
	return nil
}

// makeReadable finishes the packs if a received file has chunks that may not be
// in a pack yet.
func (r *Receiver) makeReadable(f *file) error {
	if !r.names.StoredAfter(f, r.stored) {
		return nil
	}
	return r.rotate(r.ctx)
}

// save saves a record that has all received files.
func (r *Receiver) save(ctx context.Context) error {
	c := &r.checkpoint
	if c.frozen || len(c.pending) == 0 && !c.all {
		return nil
	}
	if c.all || len(c.record.Parts) >= maxParts {
		c.pending, c.record.Parts, c.record.Removed = r.names.Received(), nil, nil
	}
	numbers, added, err := r.savePart(ctx)
	if err != nil {
		return err
	}
	if err := r.rotate(ctx); err != nil {
		return err
	}
	if r.spool != nil {
		if err := r.spool.Sync(); err != nil {
			return r.fail(err)
		}
	}
	c.record.Removed = slices.DeleteFunc(c.record.Removed, func(p string) bool { return added[p] })
	c.record.Files, c.record.Bytes, c.record.Spooled = r.names.Count()
	if err := r.saveRecord(ctx); err != nil {
		return err
	}
	for _, i := range numbers {
		r.names.File(i).State |= saved
	}
	c.pending, c.bytes, c.unsaved, c.all, c.last = c.pending[:0], 0, 0, false, r.opts.Now()
	return nil
}

// savePart adds a part with the pending files to the record. It returns the
// numbers of the pending files, and the paths in the part. Spooled files are
// not in the part but in the spool's index.
func (r *Receiver) savePart(ctx context.Context) (numbers []uint32, added map[string]bool, err error) {
	c := &r.checkpoint
	slices.Sort(c.pending)
	c.pending = slices.Compact(c.pending)
	part := tree.NewBuilder(r.writer.SaveNode, nil)
	added = map[string]bool{}
	for _, path := range c.pending {
		number, ok := r.names.Number(path)
		if !ok {
			continue
		}
		numbers = append(numbers, number)
		f := r.names.File(number)
		if f.Spooled() {
			continue
		}
		if err := part.Add(ctx, &tree.Entry{Path: path, Mode: blob.FileMode, ModTime: tree.At(r.now), Content: r.names.Content(f)}); err != nil {
			return nil, nil, r.fail(err)
		}
		added[path] = true
	}
	if part.Count() > 0 {
		root, err := part.Finish(ctx)
		if err != nil {
			return nil, nil, r.fail(err)
		}
		c.record.Parts = append(c.record.Parts, root)
	}
	return numbers, added, nil
}

// fail records err, after which nothing more is stored, since chunks of earlier
// files may be lost.
func (r *Receiver) fail(err error) error {
	r.broken = noSpace(err)
	return r.broken
}
