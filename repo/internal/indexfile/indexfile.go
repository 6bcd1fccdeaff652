// Package indexfile writes the index files of a repository.
//
// Old index files are removed only after the new ones are durable. Package store
// reads them.
package indexfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// HeaderOf returns the header of a pack according to an index.
func HeaderOf(x *index.Index, p index.Pack) pack.Header {
	h := pack.Header{Kind: p.Kind}
	for _, ref := range p.Blocks {
		_, b := x.Block(ref)
		h.Blocks = append(h.Blocks, b)
	}
	return h
}

// MaxSize is the length in bytes from which a Builder adds no more packs to an index
// file. The last pack can make the file longer, but not as long as index.MaxFileSize.
const MaxSize = 64 << 20

// Builder collects packs into index files of limited length.
type Builder struct {
	sealer *crypto.Sealer
	put    func(ctx context.Context, file []byte) error
	file   *index.File
}

// NewBuilder returns a builder that passes complete index files to put.
func NewBuilder(r *store.Store, put func(ctx context.Context, file []byte) error) *Builder {
	return &Builder{sealer: r.IndexSealer, put: put, file: &index.File{}}
}

// Add lists a pack.
func (b *Builder) Add(ctx context.Context, id pack.ID, size int64, h *pack.Header) error {
	b.file.Add(id, size, h)
	if b.file.Size() >= MaxSize {
		return b.Flush(ctx)
	}
	return nil
}

// Flush makes an index file of the packs that were added since the last flush, if any,
// and calls put with it. If put fails, the packs stay for the next flush.
func (b *Builder) Flush(ctx context.Context) error {
	if b.file.Len() == 0 {
		return nil
	}
	sealed, err := b.file.Seal(b.sealer)
	if err != nil {
		return err
	}
	if err := b.put(ctx, sealed); err != nil {
		return err
	}
	b.file = &index.File{}
	return nil
}

// Len returns how many packs were added since the last flush.
func (b *Builder) Len() int { return b.file.Len() }

// Put stores an index file and returns its name.
func Put(ctx context.Context, r *store.Store, file []byte) (string, error) {
	id, err := r.PutNamed(ctx, layout.IndexDir, file)
	if err != nil {
		return "", fmt.Errorf("store an index file: %w", err)
	}
	return layout.IndexDir + id.String(), nil
}

// Remove removes index files that others have replaced.
func Remove(ctx context.Context, r *store.Store, names []string) error {
	for _, name := range names {
		if err := replace.Delete(ctx, r.Backend, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove an index file: %w", err)
		}
	}
	return nil
}

const (
	// Unlist merges index files below smallIndex bytes if there are at least
	// manySmall of them, Merge if there are at least tooManySmall.
	smallIndex   = 1 << 20
	manySmall    = 16
	tooManySmall = 24
)

// Merge merges small index files if there are too many. Each backup adds one, and a prune that
// removes no pack would leave them all: then every process reads more each day. The caller
// holds a prune lock.
func Merge(ctx context.Context, r *store.Store) error {
	small := 0
	err := r.Backend.List(ctx, layout.IndexDir, func(f backend.Info) error {
		if f.Size < smallIndex {
			small++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list index files: %w", err)
	}
	if small < tooManySmall {
		return nil
	}
	return Unlist(ctx, r, nil)
}

// Unlist removes the given packs, and all packs that do not exist, from the index.
// It replaces the index files that list them. It merges small index files if there
// are many.
func Unlist(ctx context.Context, r *store.Store, packs map[pack.ID]bool) error {
	names, err := r.NamesIn(ctx, layout.IndexDir)
	if err != nil {
		return err
	}
	u := &unlister{r: r, unlist: packs, listed: map[pack.ID][32]byte{}}
	// List packs after index files. A pack is stored before the file that lists it,
	// so a listed pack that does not exist now was removed.
	if u.exists, err = r.ListPacks(ctx); err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	u.files = NewBuilder(r, func(ctx context.Context, file []byte) error {
		name, err := Put(ctx, r, file)
		u.new = append(u.new, name)
		return err
	})
	for _, name := range names {
		if err := u.rewrite(ctx, name, false); err != nil {
			return err
		}
	}
	if len(u.small) >= manySmall {
		for _, name := range u.small {
			if err := u.rewrite(ctx, name, true); err != nil {
				return err
			}
		}
	}
	if err := u.files.Flush(ctx); err != nil {
		return err
	}
	if err := r.CheckLock(ctx); err != nil {
		// Remove the new files again: they may list packs that another prune has
		// removed. The old files, or those of the other prune, list all remaining
		// packs.
		for _, name := range u.new {
			if !slices.Contains(names, name) {
				_ = r.Backend.Delete(context.WithoutCancel(ctx), name)
			}
		}
		return fmt.Errorf("prune: %w", err)
	}
	return Remove(ctx, r, u.old)
}

// unlister is one run of Unlist.
type unlister struct {
	r      *store.Store
	unlist map[pack.ID]bool     // packs to remove from the index
	exists map[pack.ID]int64    // packs that exist, with their sizes
	listed map[pack.ID][32]byte // packs in new files, with hashes of their sizes and headers
	files  *Builder
	small  []string // small files that can stay
	old    []string // files that new ones replace
	new    []string // new files
}

// rewrite adds the packs of an index file to a new one, without those to remove. If
// all is false, it does nothing for a file without packs to remove.
func (u *unlister) rewrite(ctx context.Context, name string, all bool) error {
	type entry struct {
		id   pack.ID
		size int64
		h    pack.Header
	}
	b, err := u.r.ReadNamed(ctx, name, index.MaxFileSize)
	if err != nil {
		return err
	}
	var entries []entry
	changed := all
	err = index.OpenFile(b, u.r.IndexSealer, func(id pack.ID, size int64, h pack.Header) {
		if _, ok := u.exists[id]; !ok || u.unlist[id] {
			changed = true
			return
		}
		entries = append(entries, entry{id, size, h})
	})
	if err != nil {
		return &store.DamageError{File: name, Err: err}
	}
	if !changed {
		if len(b) < smallIndex {
			u.small = append(u.small, name)
		}
		return nil
	}
	u.old = append(u.old, name)
	for i := range entries {
		e := &entries[i]
		sum := blake.Sum(e.h.Append(binary.AppendUvarint(nil, uint64(e.size))))
		if first, listed := u.listed[e.id]; listed {
			if first != sum { // it was stored after the index was loaded
				return store.Disagreement(name, e.id)
			}
			continue
		}
		u.listed[e.id] = sum
		if err := u.files.Add(ctx, e.id, e.size, &e.h); err != nil {
			return err
		}
	}
	return nil
}
