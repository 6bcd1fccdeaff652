package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// maxAhead is the number of batches by which the fastest goroutine may be ahead
// of the slowest.
const maxAhead = 64

// batch is a sequence of neighbouring files that one goroutine reads in order.
type batch struct {
	files []file
	bytes int64         // to read
	done  chan struct{} // closed when all files have their content
}

// file is a file or folder on its way into the tree.
type file struct {
	entry   tree.Entry
	size    int64       // as listed
	modTime tree.Time   // as listed
	row     int32       // in the manifest, -1 if none
	parent  *tree.Entry // the same file in the parent, or nil
	read    bool        // its content must be read
	leftOut bool        // it could not be read
	doubts  []string    // kinds of findings about the content; the digest decides whether they are damage or remarks
}

// store stores all files and their tree, and returns the tree's root.
func (j *job) store(ctx context.Context, w *repo.Writer) (root chunk.ID, err error) {
	j.opts.Progress.Enter("reading files")
	var old *tree.Outline
	if j.parent != nil {
		old = j.r.Outline(ctx, j.parent)
	}
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan *batch, maxAhead)
	order := make(chan *batch, maxAhead)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		return j.plan(gctx, func(b *batch) error {
			for _, c := range []chan *batch{order, work} {
				select {
				case c <- b:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
			return nil
		})
	})
	for range max(1, j.opts.Workers) {
		writer := w.NewContentWriter()
		g.Go(func() error {
			for b := range work {
				if err := j.read(gctx, writer, b); err != nil {
					return err
				}
				close(b.done)
			}
			return writer.Flush(gctx)
		})
	}
	g.Go(func() error {
		root, err = buildTree(gctx, tree.NewBuilder(w.SaveNode, old), order)
		return err
	})
	if err := g.Wait(); err != nil {
		return root, err
	}
	return root, nil
}

// buildTree adds the files of all batches to a tree, in order.
func buildTree(ctx context.Context, builder *tree.Builder, order <-chan *batch) (chunk.ID, error) {
	for b := range order {
		select {
		case <-b.done:
		case <-ctx.Done():
			return chunk.ID{}, ctx.Err()
		}
		for i := range b.files {
			if b.files[i].leftOut {
				continue
			}
			if err := builder.Add(ctx, &b.files[i].entry); err != nil {
				return chunk.ID{}, err
			}
		}
	}
	return builder.Finish(ctx)
}

// plan divides the items into batches and calls emit for them, in order. Files
// that are in the repository get their content; the others are marked to be
// read.
func (j *job) plan(ctx context.Context, emit func(*batch) error) error {
	next, stop := iter.Pull2(j.parentEntries(ctx))
	defer stop()
	old, err, more := next()
	b := newBatch()
	for _, i := range j.order {
		f := j.file(j.items.at(int(i)))
		for more && err == nil && old.Key().Compare(f.entry.Key()) < 0 {
			old, err, more = next()
		}
		if err != nil {
			return err
		}
		if more && old.Key() == f.entry.Key() {
			f.parent = old
		}
		if err := j.decide(ctx, &f); err != nil {
			return err
		}
		if f.read {
			b.bytes += f.size
		}
		b.files = append(b.files, f)
		if len(b.files) >= blob.BatchFiles || b.bytes >= blob.BatchBytes {
			if err := emit(b); err != nil {
				return err
			}
			b = newBatch()
		}
	}
	return emit(b)
}

// decide sets a file's content if the repository has it, or marks the file to
// be read.
func (j *job) decide(ctx context.Context, f *file) error {
	if f.entry.Kind == tree.Dir {
		return nil
	}
	stored, err := j.useStored(ctx, f)
	switch {
	case err != nil:
		return err
	case stored:
		j.opts.Progress.Bytes.Add(f.size)
	case f.size > 0:
		f.read = true
		j.res.ReadFiles++
		j.res.ReadBytes += f.size
	}
	return nil
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// parentEntries iterates over the parent's entries. It ends early if the parent
// is damaged; the remaining files are then read and stored again.
func (j *job) parentEntries(ctx context.Context) iter.Seq2[*tree.Entry, error] {
	return func(yield func(*tree.Entry, error) bool) {
		if j.parent == nil {
			return
		}
		stopped := errors.New("stopped")
		err := j.r.Walk(ctx, j.parent, "", func(e *tree.Entry) error {
			if !yield(e, nil) {
				return stopped
			}
			return nil
		})
		if ctx.Err() != nil && !errors.Is(err, stopped) {
			yield(nil, ctx.Err())
		}
	}
}

// file makes the file for an item, without content.
func (j *job) file(it *item) file {
	key := j.key(it)
	e := tree.Entry{
		Path: key.Path, Domain: key.Domain, Name: key.Name,
		Mode: uint32(it.mode), ModTime: it.modTime(),
	}
	if it.dir {
		e.Kind = tree.Dir
		return file{entry: e, row: it.row}
	}
	if it.inode != 0 || it.changeTime != 0 {
		e.Stat = &tree.Stat{Inode: it.inode, ChangeTime: it.changeTime}
	}
	if it.row >= 0 {
		rec := j.records.At(int(it.row))
		e.Record = &tree.Record{ModTime: rec.ModTime, Sum: recordSum(&rec)}
	}
	return file{entry: e, size: it.size, modTime: e.ModTime, row: it.row}
}

// recordSum hashes the fields of a record that describe a file's content.
func recordSum(rec *manifest.Record) uint64 {
	b := make([]byte, 0, 192)
	for _, v := range []int64{rec.Size, rec.ModTime, rec.ChangeTime, rec.Birth, int64(rec.Inode), int64(rec.Mode), int64(rec.ProtectionClass)} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	b = append(b, rec.Digest[:]...)
	b = append(b, rec.EncryptionKey...)
	sum := blake.Sum(b)
	return binary.LittleEndian.Uint64(sum[:])
}
