package virtual

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// checkpoint is what the repository knows of an unfinished run.
//
// The record has the names that have arrived while the device says "uploading",
// and stands still from "moving" on: with all files, manifests and that
// Status.plist it is what a folder is in which no file has been moved yet. A
// run that breaks off later is continued from there; the device moves and
// removes once more.
type checkpoint struct {
	record *repo.Unfinished
	fresh  []string // paths that the record does not have yet
	bytes  int64    // received since it was saved
	last   time.Time
	frozen bool // the device has begun to move files

	unsaved int  // names taken out since the last save
	all     bool // the next save is to have all names
	rest    bool // the one before files move is: the record lacks earlier names
}

const (
	// checkpointFiles bounds the paths that wait for a checkpoint.
	checkpointFiles = 1 << 16
	// maxUnsaved is how many names are taken out of the record one by one, at
	// the cost of writing it each time.
	maxUnsaved = 256
	// joinParts is the number of parts from which they are made one.
	joinParts = 1 << 12
)

// cutSnapshot cuts the folder of files that have arrived off a path.
func cutSnapshot(path string) (string, bool) { return strings.CutPrefix(path, snapshotDir+"/") }

// note remembers a name for the next checkpoint.
func (n *Run) note(path string) {
	if !n.checkpoint.frozen {
		n.checkpoint.fresh = append(n.checkpoint.fresh, path)
	}
}

// changing is called before what lies under a name changes. A blob that the
// record has is taken out of it first: should the run break off, the next one
// must not show the device the name of a version that it has sent anew.
func (n *Run) changing(ctx context.Context, path string) error {
	c := &n.checkpoint
	if c.frozen {
		return nil
	}
	number, ok := n.names.numberOf(path)
	if !ok {
		if _, dir := n.names.dirs[path]; dir || path == "" {
			return n.unsaveAll(ctx)
		}
		return nil
	}
	f := &n.names.files[number]
	if f.state&spooled != 0 {
		// Its index has it before the record knows.
		f.state &^= saved
		return n.spool.forget(path)
	}
	if f.state&saved == 0 || !needsKey(path) {
		return nil
	}
	f.state &^= saved
	if c.unsaved++; c.unsaved > maxUnsaved {
		c.all = true // anew after this file
		return n.unsaveParts(ctx)
	}
	c.record.Removed = append(c.record.Removed, path)
	return n.saveRecord(ctx)
}

// unsaveAll durably empties the record and the index of the spool.
func (n *Run) unsaveAll(ctx context.Context) error {
	n.checkpoint.all = false
	if n.spool != nil {
		if err := n.spool.forgetAll(); err != nil {
			return n.fail(err)
		}
		for i := range n.names.files {
			n.names.files[i].state &^= saved
		}
	}
	return n.unsaveParts(ctx)
}

// unsaveParts durably empties the record. What is in the spool stays.
func (n *Run) unsaveParts(ctx context.Context) error {
	for i := range n.names.files {
		if f := &n.names.files[i]; f.state&spooled == 0 {
			f.state &^= saved
		}
	}
	r := n.checkpoint.record
	if len(r.Parts) == 0 {
		return nil
	}
	r.Parts, r.Removed, r.Files, r.Bytes = nil, nil, 0, 0
	return n.saveRecord(ctx)
}

func (n *Run) saveRecord(ctx context.Context) error {
	n.checkpoint.record.SetStats(n.stats)
	if err := n.r.SaveUnfinished(ctx, n.checkpoint.record); err != nil {
		return n.fail(err)
	}
	return nil
}

// await waits for do, which a hanging store could keep for ever, no longer than
// ctx lasts.
func (n *Run) await(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("storing was given up: %w", context.Cause(ctx))
	}
}

// setStatus follows what the device says of its backup.
func (n *Run) setStatus(ctx context.Context, s status) error {
	before := n.status
	s.full = s.full || before.full && before.run == s.run
	n.status = s
	c := &n.checkpoint
	switch {
	case before.run != "" && before.run != s.run && n.resumed != (Resumed{}):
		// Another run than the one that broke off. It may send everything again,
		// or go on with what is there: that is not known before files move. Until
		// then the record has what this run brings.
		if err := n.unsaveParts(ctx); err != nil {
			return err
		}
		c.frozen, c.rest, c.fresh = false, true, []string{mobilesync.StatusPlist}
	case c.frozen:
		return nil
	}
	if s.state == stateMoving {
		c.all = c.all || c.rest
		// All files and both manifests are here.
		if err := n.save(ctx); err != nil {
			return err
		}
		c.frozen = true
		return nil
	}
	return n.saveIfDue(ctx)
}

func (n *Run) saveIfDue(ctx context.Context) error {
	if !n.due() {
		return nil
	}
	return n.save(ctx)
}

// due reports whether a checkpoint is worth its cost: some small packs and an
// index file, and flushing.
func (n *Run) due() bool {
	c := &n.checkpoint
	before := n.bytes - c.bytes
	switch {
	case c.all, len(c.fresh) >= checkpointFiles, n.opts.Now().Sub(c.last) >= n.opts.CheckpointTime:
		return true
	case c.bytes >= min(n.opts.CheckpointBytes, max(firstCheckpoint, before)):
		return true
	}
	return n.spool != nil && c.record.ID == repo.FileID{} && c.bytes >= firstSpooled
}

// rotate makes all that was stored durable and goes on with a new writer.
func (n *Run) rotate(ctx context.Context) error {
	if n.broken != nil {
		return n.broken
	}
	err := n.await(ctx, func() error {
		if err := n.lane.Flush(n.ctx); err != nil {
			return err
		}
		return n.writer.Finish(n.ctx)
	})
	if err != nil {
		return n.fail(err)
	}
	n.stats = n.stats.Add(n.writer.Stats())
	n.stored = len(n.names.ids)
	n.openWriter()
	return nil
}

// settle makes a received file readable: its chunks may be on their way still.
func (n *Run) settle(f *file) error {
	if f.at+int64(f.n) <= int64(n.stored) {
		return nil
	}
	return n.rotate(n.ctx)
}

// save writes the record of all that has been received complete.
func (n *Run) save(ctx context.Context) error {
	c := &n.checkpoint
	if c.frozen || len(c.fresh) == 0 && !c.all {
		return nil
	}
	if c.all || len(c.record.Parts) >= joinParts {
		c.fresh, c.record.Parts, c.record.Removed = n.names.allReceived(), nil, nil
	}
	slices.Sort(c.fresh)
	c.fresh = slices.Compact(c.fresh)
	part := tree.NewBuilder(n.writer.SaveNode, nil)
	var numbers []uint32
	removed := map[string]bool{}
	for _, p := range c.record.Removed {
		removed[p] = true
	}
	for _, path := range c.fresh {
		number, ok := n.names.numberOf(path)
		if !ok {
			continue
		}
		numbers = append(numbers, number)
		f := &n.names.files[number]
		if f.state&spooled != 0 {
			continue // the spool's own index says so
		}
		if err := part.Add(ctx, &tree.Entry{Path: path, Mode: fileMode, ModTime: n.now.UnixNano(), Content: n.names.content(f)}); err != nil {
			return n.fail(err)
		}
		delete(removed, path)
	}
	if part.Count() > 0 {
		root, err := part.Finish(ctx)
		if err != nil {
			return n.fail(err)
		}
		c.record.Parts = append(c.record.Parts, root)
	}
	if err := n.rotate(ctx); err != nil {
		return err
	}
	if n.spool != nil {
		if err := n.spool.sync(); err != nil {
			return n.fail(err)
		}
	}
	c.record.Removed = slices.DeleteFunc(c.record.Removed, func(p string) bool { return !removed[p] })
	c.record.Files, c.record.Bytes, c.record.Spooled = n.names.receivedBlobs()
	if err := n.saveRecord(ctx); err != nil {
		return err
	}
	for _, i := range numbers {
		n.names.files[i].state |= saved
	}
	c.fresh, c.bytes, c.unsaved, c.all, c.last = c.fresh[:0], 0, 0, false, n.opts.Now()
	return nil
}

// fail ends all storing: what the writer has promised may be lost.
func (n *Run) fail(err error) error {
	n.broken = noSpace(err)
	return n.broken
}

// resume loads what an interrupted run has left, or begins anew.
func (n *Run) resume(ctx context.Context) error {
	if n.opts.SpoolDir != "" {
		n.opts.SpoolDir = filepath.Clean(n.opts.SpoolDir)
	}
	list, damaged, err := n.r.Unfinished(ctx)
	if err != nil {
		return err
	}
	for _, err := range damaged {
		n.problems = append(n.problems, fmt.Sprintf("an interrupted backup cannot be continued: %v", err))
	}
	var old *repo.Unfinished
	for _, u := range list {
		if u.Kind == repo.UnfinishedBackup && repo.SameDevice(u.UDID, n.opts.UDID) {
			old = u
		}
	}
	if old != nil {
		ok, err := n.load(ctx, old)
		if err != nil {
			return err
		}
		if !ok {
			if err := n.drop(ctx, old); err != nil {
				return err
			}
			old = nil
		}
	}
	if old == nil {
		if err := n.fresh(); err != nil {
			return err
		}
	}
	n.sweep(list)
	if n.spool != nil {
		return nil
	}
	if want, err := n.wantsSpool(ctx); err != nil || !want {
		return err
	}
	return n.openSpool()
}

// fresh begins with nothing but the parent.
func (n *Run) fresh() (err error) {
	if n.spool != nil {
		_ = n.spool.close()
		n.spool = nil
	}
	n.names, n.resumed, n.status, n.stats = newNames(n.shown), Resumed{}, status{}, repo.WriteStats{}
	n.checkpoint = checkpoint{}
	if n.checkpoint.record, err = n.r.NewUnfinished(repo.UnfinishedBackup, n.opts.UDID); err != nil {
		return err
	}
	u := n.checkpoint.record
	u.Device, u.Host, u.Program = n.opts.Device, n.opts.Host, n.opts.Program
	if n.parent != nil {
		u.Parent, u.Full = &n.parent.ID, n.shown == nil
	}
	return nil
}

// drop removes what cannot be continued.
func (n *Run) drop(ctx context.Context, u *repo.Unfinished) error {
	if err := n.r.RemoveUnfinished(ctx, u); err != nil {
		return err
	}
	if n.spool != nil {
		sp := n.spool
		n.spool = nil
		return sp.remove()
	}
	return nil
}

// load takes over what an interrupted run has left. It reports whether that
// makes sense: the device must continue the same snapshot, and once it has
// begun to move files, all of them must be there.
func (n *Run) load(ctx context.Context, u *repo.Unfinished) (bool, error) {
	sameParent := (u.Parent == nil) == (n.parent == nil) && (u.Parent == nil || n.parent.Has(*u.Parent))
	begunFull := u.Full || n.parent == nil
	if !sameParent || !begunFull && n.shown == nil {
		return false, nil
	}
	if begunFull {
		n.shown, n.names = nil, newNames(nil)
	}
	n.checkpoint.record = u
	n.stats = u.Stats()
	removed := map[string]bool{}
	for _, p := range u.Removed {
		removed[p] = true
	}
	lost := false
	whole := &set{r: n.r}
	err := n.r.WalkUnfinished(ctx, u, func(e *tree.Entry) error {
		if removed[e.Path] || e.Kind != tree.File || e.Encryption != nil {
			return nil
		}
		there, err := whole.whole(ctx, &e.Content)
		if err != nil {
			return err
		}
		if !there {
			lost = true
			n.names.removeFile(e.Path)
			return nil
		}
		number, err := n.names.keep(&e.Content, saved)
		if err != nil {
			return err
		}
		return n.names.put(e.Path, number, n.now)
	})
	if errors.Is(err, repo.ErrDamaged) {
		n.problems = append(n.problems, fmt.Sprintf("an interrupted backup cannot be continued: %v", err))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	n.stored = len(n.names.ids)
	if u.Spooled > 0 || n.spoolIsThere() {
		waiting, err := n.loadSpool(ctx)
		if err != nil {
			return false, err
		}
		lost = lost || waiting < u.Spooled
	}
	if n.status, err = n.readStatus(ctx); err != nil {
		return false, err
	}
	n.checkpoint.frozen = n.status.state == stateMoving
	if n.checkpoint.frozen && lost {
		return false, nil
	}
	n.resumed.Files, n.resumed.Bytes, _ = n.names.receivedBlobs()
	n.resumed.Since = u.Started
	return true, nil
}

// spoolIsThere reports whether the run that is continued has left a spool here.
// Its index is ahead of the record, by what came after the last checkpoint.
func (n *Run) spoolIsThere() bool {
	if n.opts.SpoolDir == "" {
		return false
	}
	info, err := os.Lstat(filepath.Join(n.opts.SpoolDir, n.spoolName()))
	return err == nil && info.IsDir()
}

// loadSpool takes over the spool of an interrupted run. Where it lies on
// another computer, or is gone, the device sends its files again.
func (n *Run) loadSpool(ctx context.Context) (int64, error) {
	if n.opts.SpoolDir == "" {
		return 0, nil
	}
	if err := n.openSpool(); err != nil {
		return 0, err
	}
	kept, err := n.spool.load(ctx)
	if err != nil {
		return 0, err
	}
	taken := int64(0)
	for path, l := range kept {
		// Others are not spooled, and could be folders of those that are.
		if !tree.CleanPath(path) || !needsKey(path) {
			continue
		}
		number, err := n.names.add(file{size: l.Size, at: l.Offset, state: spooled | saved})
		if err != nil {
			return 0, err
		}
		if err := n.names.put(path, number, n.now); err != nil {
			return 0, err
		}
		taken++
	}
	return taken, nil
}

func (n *Run) readStatus(ctx context.Context) (status, error) {
	if _, ok := n.names.numberOf(mobilesync.StatusPlist); !ok {
		return status{}, nil
	}
	f, err := n.open(ctx, mobilesync.StatusPlist)
	if err != nil {
		return status{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStatus))
	return parseStatus(b), err
}
