package transfer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo/tree"
)

type rootID = chunk.ID

// item is one entry of the folder before it becomes an entry of the tree.
type item struct {
	file   folder.File
	record int32 // row of the manifest, or -1
}

// fileStat is what a file must still be when it has been read.
type fileStat struct{ size, modTime int64 }

// batch is a run of neighbouring entries, in order.
type batch struct {
	entries []tree.Entry
	read    []int // entries whose content has to be read
	stats   []fileStat
	rows    []int32       // of the manifest, or -1
	before  []*tree.Entry // in the parent, or nil
	gone    map[int]bool  // entries that could not be read and are left out
	bytes   int64
	done    chan struct{} // closed when all content is there
}

// list walks the folder, reads its manifest beside that, and sorts what belongs
// together.
func (im *importer) list(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	walked := make(chan error, 1)
	go func() {
		if im.items != nil { // same has looked
			walked <- nil
			return
		}
		walked <- im.walk(inner)
	}()
	err := im.readRecords(ctx)
	if err != nil {
		cancel()
	}
	walkErr := <-walked
	cancel()
	if err := cmp.Or(err, walkErr); err != nil {
		return err
	}
	if err := im.match(); err != nil {
		return err
	}
	im.opts.Progress.TotalFiles.Store(im.res.Files)
	im.opts.Progress.TotalBytes.Store(im.res.Bytes)
	slices.SortFunc(im.items, im.compare)
	return nil
}

func (im *importer) readRecords(ctx context.Context) error {
	if !im.b.Readable() {
		return nil
	}
	records, err := im.b.Records(ctx)
	switch {
	case err == nil:
		im.records = records
	case ctx.Err() != nil:
		return ctx.Err()
	case im.opts.AllowIncomplete:
		im.mark(err.Error())
	case errors.Is(err, manifest.ErrCorrupt):
		return &IncompleteError{im.b.Dir(), []string{err.Error()}}
	default:
		return fmt.Errorf("%s: %w", im.b.Dir(), err)
	}
	return nil
}

func (im *importer) walk(ctx context.Context) error {
	for f, err := range im.b.Files(ctx) {
		if err != nil {
			return err
		}
		im.items = append(im.items, item{f, -1})
	}
	return nil
}

// match finds the row of each file, and leaves out what is not to be stored.
func (im *importer) match() error {
	var cmpr *mobilesync.Comparison
	if im.records != nil {
		cmpr = im.b.NewComparison(im.records)
	}
	kept := im.items[:0]
	for _, it := range im.items {
		if it.file.Skipped != "" {
			if err := im.skip(it.file); err != nil {
				return err
			}
			continue
		}
		if cmpr != nil {
			if row, ok := cmpr.Add(it.file); ok {
				domain, name := im.records.Name(row)
				if len(domain) <= tree.MaxName && len(name) <= tree.MaxName {
					it.record = int32(row)
				}
			}
		}
		kept = append(kept, it)
		if !it.file.Dir {
			im.res.Files++
			im.res.Bytes += it.file.Size
		}
	}
	im.items = kept
	if cmpr != nil {
		rep := cmpr.Report()
		im.res.Report = &rep
		im.res.Anomalies = &im.records.Anomalies
	}
	return nil
}

// compare orders items by key. Rows of the manifest are in that order, so their
// numbers say the same.
func (im *importer) compare(a, b item) int {
	if a.record >= 0 && b.record >= 0 {
		return cmp.Compare(a.record, b.record)
	}
	return im.key(&a).Compare(im.key(&b))
}

// skip leaves out links and special files, which no device writes, and refuses
// names that could not be given back.
func (im *importer) skip(f folder.File) error {
	if err := folder.CheckPath(f.Path); err != nil {
		if !im.opts.AllowIncomplete {
			return &IncompleteError{im.b.Dir(), []string{fmt.Sprintf("%v; rename or remove it", err)}}
		}
		im.mark(err.Error())
	}
	im.res.Skipped = append(im.res.Skipped, fmt.Sprintf("%s: %s", f.Path, f.Skipped))
	return nil
}

func (im *importer) key(it *item) tree.Key {
	k := tree.Key{Path: it.file.Path}
	if it.record >= 0 {
		k.Domain, k.Name = im.records.Name(int(it.record))
	}
	return k
}

// plan cuts the items into batches and hands them on in order. Content of
// files that are as in the parent is taken from there.
func (im *importer) plan(ctx context.Context, hand func(*batch) error) error {
	next, stop := iter.Pull2(im.parentEntries(ctx))
	defer stop()
	old, err, more := next()
	b := newBatch()
	for i := range im.items {
		e, stat := im.entry(&im.items[i])
		for more && err == nil && old.Key().Compare(e.Key()) < 0 {
			old, err, more = next()
		}
		if err != nil {
			return err
		}
		held, herr := im.takeHeld(ctx, &e, im.items[i].record)
		if herr != nil {
			return herr
		}
		switch {
		case held:
			im.opts.Progress.Bytes.Add(stat.size)
		case e.Kind == tree.Dir || stat.size == 0:
		case more && !im.opts.Rescan && unchanged(old, &e, stat) && im.sameForm(old, &e, im.items[i].record) && im.stored(ctx, &old.Content):
			e.Content, e.Encryption = old.Content, old.Encryption
			im.countKept(&e, im.items[i].record)
			im.opts.Progress.Bytes.Add(stat.size)
		default:
			b.read = append(b.read, len(b.entries))
			b.bytes += stat.size
			im.res.ReadFiles++
			im.res.ReadBytes += stat.size
		}
		b.entries = append(b.entries, e)
		b.stats = append(b.stats, stat)
		b.rows = append(b.rows, im.items[i].record)
		var before *tree.Entry
		if more && old.Key() == e.Key() {
			before = old
		}
		b.before = append(b.before, before)
		if len(b.entries) >= batchFiles || b.bytes >= batchBytes {
			if err := hand(b); err != nil {
				return err
			}
			b = newBatch()
		}
	}
	return hand(b)
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// parentEntries goes through the parent's tree. A parent that is damaged ends
// it early: the rest of the files are then read, which stores anew what the
// repository has lost.
func (im *importer) parentEntries(ctx context.Context) iter.Seq2[*tree.Entry, error] {
	return func(yield func(*tree.Entry, error) bool) {
		if im.parent == nil {
			return
		}
		stopped := errors.New("stopped")
		err := im.r.Walk(ctx, im.parent, "", func(e *tree.Entry) error {
			if !yield(e, nil) {
				return stopped
			}
			return nil
		})
		if ctx.Err() != nil && err != stopped {
			yield(nil, ctx.Err())
		}
	}
}

// unchanged reports whether a file is the one that the parent has, going by
// everything but its bytes: size, mtime, inode, change time, and what the
// manifest says of it. Where the system has neither inode nor change time,
// there is too little to go by.
func unchanged(old, e *tree.Entry, stat fileStat) bool {
	return old.Kind == e.Kind && old.Key() == e.Key() &&
		blobSize(old) == stat.size && old.ModTime == e.ModTime &&
		old.Stat != nil && e.Stat != nil && *old.Stat == *e.Stat &&
		equalSource(old.Record, e.Record)
}

// sameForm reports whether the parent has stored a file in the form in which it
// is to be stored now: with the password one day and without it the other, a
// file that has not changed is stored again.
func (im *importer) sameForm(old, e *tree.Entry, row int32) bool {
	if im.parent.Unlocked == im.b.Unlocked() {
		return true
	}
	_, sealed, _ := im.sealOf(e, row)
	return !sealed && old.Encryption == nil
}

// errLost ends the look at a content of which something is not there.
var errLost = errors.New("lost")

// stored reports whether all of a content that the parent refers to is in the
// repository still. What cannot be found out counts as lost: reading the file
// again does no harm.
func (im *importer) stored(ctx context.Context, c *tree.Content) bool {
	has := func(id chunk.ID) error {
		if !im.r.Index().Reusable(id) {
			return errLost
		}
		return nil
	}
	return c.All(ctx, im.r.Chunk, has, has) == nil
}

func equalSource(a, b *tree.Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// entry makes the entry of the tree for an item, without content.
func (im *importer) entry(it *item) (tree.Entry, fileStat) {
	f := &it.file
	key := im.key(it)
	e := tree.Entry{
		Path: f.Path, Domain: key.Domain, Name: key.Name,
		Mode: uint32(f.Mode.Perm()), ModTime: f.ModTime.UnixNano(),
	}
	if f.Dir {
		e.Kind = tree.Dir
		return e, fileStat{}
	}
	if f.Inode != 0 || f.ChangeTime != 0 {
		e.Stat = &tree.Stat{Inode: f.Inode, ChangeTime: f.ChangeTime}
	}
	if it.record >= 0 {
		rec := im.records.At(int(it.record))
		e.Record = &tree.Record{ModTime: rec.ModTime, Sum: rowSum(&rec)}
	}
	return e, fileStat{f.Size, e.ModTime}
}

// rowSum fingerprints what a row says of a file's content.
func rowSum(rec *manifest.Record) uint64 {
	b := make([]byte, 0, 192)
	for _, v := range []int64{rec.Size, rec.ModTime, rec.ChangeTime, rec.Birth, int64(rec.Inode), int64(rec.Mode), int64(rec.ProtectionClass)} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	b = append(b, rec.Digest[:]...)
	b = append(b, rec.EncryptionKey...)
	sum := blake.Sum(b)
	return binary.LittleEndian.Uint64(sum[:])
}
