package writer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// unlistedPack is a stored pack that no index file lists yet.
type unlistedPack struct {
	id   pack.ID
	size int64
	h    pack.Header
}

// AddBlock adds a sealed block to the open pack of its kind. If the block does not
// fit, AddBlock passes that pack on to be stored and begins another.
func (w *Writer) AddBlock(kind pack.Kind, sealed []byte, b pack.Block) error {
	w.mu.Lock()
	var full *pack.Builder
	cur := w.builders[kind]
	if cur != nil && !cur.Fits(len(sealed), len(b.Chunks), w.r.Options.PackSize) {
		full, cur = cur, nil
	}
	if cur == nil {
		cur = pack.NewBuilder(kind, w.packBuffer(kind))
	}
	w.builders[kind] = cur
	cur.Add(sealed, b)
	w.mu.Unlock()
	if full == nil {
		return nil
	}
	return w.submitPack(full)
}

// packBuffer returns memory for a pack. Packs of content usually fill up, and their
// buffers are reused: new memory costs more than what is written to it. Packs of metadata
// seldom fill up, and there are few.
func (w *Writer) packBuffer(kind pack.Kind) []byte {
	size := w.r.Options.PackSize
	if kind != pack.Content {
		return make([]byte, 0, size/16)
	}
	select {
	case buf := <-w.spare:
		return buf
	default:
		return make([]byte, 0, size+size/16)
	}
}

// reuse keeps the buffer of a pack that was stored, for another pack of content.
func (w *Writer) reuse(kind pack.Kind, buf []byte) {
	if kind != pack.Content {
		return
	}
	select {
	case w.spare <- buf:
	default:
	}
}

func (w *Writer) submitPack(b *pack.Builder) error {
	select {
	case w.sealed <- b:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

func (w *Writer) flushBuilders() error {
	for kind := range w.builders {
		w.mu.Lock()
		b := w.builders[kind]
		w.builders[kind] = nil
		w.mu.Unlock()
		if b != nil {
			if err := w.submitPack(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// upload finishes packs, stores them, and lists them in index files. If it fails, it
// still tries to list the packs that are durable, so that the next backup need not
// store them again.
func (w *Writer) upload() error {
	err := w.uploadAll()
	if err != nil && w.indexFile.Len() > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), rescueTime)
		defer cancel()
		_ = w.indexFile.Flush(ctx) // the first failure is the one to report
	}
	return err
}

func (w *Writer) uploadAll() error {
	for b := range w.sealed {
		file, h, err := b.Finish(w.r.PackSealer)
		if err != nil {
			return err
		}
		id := pack.Name(file)
		if err := w.r.Backend.Put(w.ctx, layout.PackName(id), file); err != nil && !errors.Is(err, backend.ErrExist) {
			return fmt.Errorf("store a pack: %w", err)
		}
		size := int64(len(file))
		w.unlisted = append(w.unlisted, unlistedPack{id, size, h})
		w.count(len(file))
		w.packs.Add(size)
		w.reuse(h.Kind, file)
		if err := w.indexFile.Add(w.ctx, id, size, &h); err != nil {
			return err
		}
		if w.indexFile.Len() >= indexEvery || w.pending() >= indexChunks {
			if err := w.indexFile.Flush(w.ctx); err != nil {
				return err
			}
		}
	}
	return w.indexFile.Flush(w.ctx)
}

func (w *Writer) count(bytes int) {
	w.mu.Lock()
	w.stats.Stored += int64(bytes)
	w.mu.Unlock()
}

// putIndex stores an index file that lists the unlisted packs, and then adds them
// to the index. This process and others may rely on their chunks only after that,
// since a snapshot must never need a pack that no index file lists.
func (w *Writer) putIndex(ctx context.Context, file []byte) error {
	// A prune that took this process for dead may have removed these packs, since
	// no index file lists them. Then no index file may list them later.
	if err := w.r.CheckLock(ctx); err != nil {
		return fmt.Errorf("store an index file: %w", err)
	}
	name, err := indexfile.Put(ctx, w.r, file)
	if err != nil {
		return err
	}
	if err := w.r.CheckLock(ctx); err != nil {
		if errors.Is(err, store.ErrLockLost) {
			_ = w.unlistMissing(context.WithoutCancel(ctx), name) // the next prune does it, too
		}
		return fmt.Errorf("store an index file: %w", err)
	}
	w.count(len(file))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.unlisted {
		w.r.Index.Add(p.id, p.size, p.h)
		for i := range p.h.Blocks {
			for _, c := range p.h.Blocks[i].Chunks {
				delete(w.claimed, c.ID)
			}
		}
	}
	w.unlisted = nil
	return nil
}

// unlistMissing replaces an index file by one without the packs that do not exist. The
// others stay listed, since other processes may rely on them already.
func (w *Writer) unlistMissing(ctx context.Context, name string) error {
	exists, err := w.r.ListPacks(ctx)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(w.unlisted), func(p unlistedPack) bool { _, ok := exists[p.id]; return !ok })
	if len(left) == len(w.unlisted) {
		return nil
	}
	b := indexfile.NewBuilder(w.r, func(ctx context.Context, file []byte) error { _, err := indexfile.Put(ctx, w.r, file); return err })
	for _, p := range left {
		if err := b.Add(ctx, p.id, p.size, &p.h); err != nil {
			return err
		}
	}
	if err := b.Flush(ctx); err != nil {
		return err
	}
	return w.r.Backend.Delete(ctx, name)
}
