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

type freshPack struct {
	id   pack.ID
	size int64
	h    pack.Header
}

// AddBlock adds a sealed block to the pack of its kind and hands on the pack that
// it does not fit into any more.
func (w *Writer) AddBlock(kind pack.Kind, sealed []byte, b pack.Block) error {
	w.mu.Lock()
	var full *pack.Builder
	cur := w.builders[kind]
	if cur != nil && !cur.Fits(len(sealed), len(b.Chunks), w.r.Options.PackSize) {
		full, cur = cur, nil
	}
	if cur == nil {
		cur = pack.NewBuilder(kind, w.builderSize(kind))
	}
	w.builders[kind] = cur
	cur.Add(sealed, b)
	w.mu.Unlock()
	if full == nil {
		return nil
	}
	return w.handOn(full)
}

// builderSize is the capacity to begin a pack with: a pack of content usually
// fills up, one of metadata seldom does.
func (w *Writer) builderSize(kind pack.Kind) int {
	if kind == pack.Content {
		return w.r.Options.PackSize + w.r.Options.PackSize/16
	}
	return w.r.Options.PackSize / 16
}

func (w *Writer) handOn(b *pack.Builder) error {
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
			if err := w.handOn(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// upload finishes packs, stores them, and lists them in index files. When it
// fails, it still tries to list the packs that are durable: the next run need
// not store them again.
func (w *Writer) upload() error {
	err := w.uploadAll()
	if err != nil && w.unlisted.Len() > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), rescueTime)
		defer cancel()
		_ = w.unlisted.Flush(ctx) // the first failure is the one to report
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
		w.fresh = append(w.fresh, freshPack{id, int64(len(file)), h})
		w.count(len(file))
		if err := w.unlisted.Add(w.ctx, id, int64(len(file)), &h); err != nil {
			return err
		}
		if w.unlisted.Len() >= indexEvery {
			if err := w.unlisted.Flush(w.ctx); err != nil {
				return err
			}
		}
	}
	return w.unlisted.Flush(w.ctx)
}

func (w *Writer) count(bytes int) {
	w.mu.Lock()
	w.stats.Stored += int64(bytes)
	w.mu.Unlock()
}

// putIndex stores an index file that lists the fresh packs. Only after that may
// others, in this process too, rely on their chunks: a snapshot must never need a
// pack that no index lists.
func (w *Writer) putIndex(ctx context.Context, file []byte) error {
	// A prune that has taken this process for dead removes packs that no index
	// lists; none is to list them then.
	if err := w.r.CheckLock(ctx); err != nil {
		return fmt.Errorf("store an index file: %w", err)
	}
	name, err := indexfile.Put(ctx, w.r, file)
	if err != nil {
		return err
	}
	if err := w.r.CheckLock(ctx); err != nil {
		if errors.Is(err, store.ErrLockLost) {
			_ = w.withdraw(context.WithoutCancel(ctx), name) // the next prune does it, too
		}
		return fmt.Errorf("store an index file: %w", err)
	}
	w.count(len(file))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.fresh {
		w.r.Index.Add(p.id, p.size, p.h)
		for i := range p.h.Blocks {
			for _, c := range p.h.Blocks[i].Chunks {
				delete(w.claimed, c.ID)
			}
		}
	}
	w.fresh = nil
	return nil
}

// withdraw replaces an index file by one without the packs that are gone. Those
// that are there stay listed: somebody may rely on them already.
func (w *Writer) withdraw(ctx context.Context, name string) error {
	there, err := w.r.ListPacks(ctx)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(w.fresh), func(p freshPack) bool { return !there[p.id] })
	if len(left) == len(w.fresh) {
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
