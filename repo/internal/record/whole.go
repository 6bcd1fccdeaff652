package record

import (
	"cmp"
	"context"
	"errors"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// Wholeness finds out which trees are whole. It reads each node once, however many trees
// share it, and no content of files. It is for one loaded index.
type Wholeness struct {
	// Missing returns damage if a chunk is not there.
	Missing func(chunk.ID) error
	// Unread, if not nil, is called for each node and list that cannot be read.
	Unread func(chunk.ID)

	r      *store.Store
	whole  *index.ChunkSet    // nodes that are whole, with all that is below them
	broken map[chunk.ID]error // nodes below which something is missing
}

// NewWholeness begins to judge the trees of a repository. For a chunk, missing returns
// damage if it is not there.
func NewWholeness(r *store.Store, missing func(chunk.ID) error) *Wholeness {
	return &Wholeness{Missing: missing, r: r, whole: r.Index.NewChunkSet(), broken: map[chunk.ID]error{}}
}

// Tree returns damage if something of a snapshot's tree is missing: the first thing, in
// order. It looks at everything all the same.
func (w *Wholeness) Tree(ctx context.Context, s *Snapshot) error { return w.node(ctx, s.Root, -1) }

// Damaged reports whether an error of Tree is damage.
func Damaged(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged))
}

func (w *Wholeness) node(ctx context.Context, id chunk.ID, above int) error {
	if err := w.broken[id]; err != nil {
		return err
	}
	if w.whole.Has(id) {
		return nil
	}
	err := w.look(ctx, id, above)
	switch {
	case err == nil:
		w.whole.Add(id)
	case Damaged(ctx, err):
		w.broken[id] = err
	}
	return err
}

// look reads a node and everything below it that is not known to be whole.
func (w *Wholeness) look(ctx context.Context, id chunk.ID, above int) error {
	first := w.Missing(id)
	n, err := tree.LoadBelow(ctx, w.load, id, above)
	if err != nil {
		return cmp.Or(first, err)
	}
	// note keeps the first damage, and returns all other errors.
	note := func(err error) error {
		if !Damaged(ctx, err) {
			return err
		}
		first = cmp.Or(first, err)
		return nil
	}
	missing := func(id chunk.ID) error { return note(w.Missing(id)) }
	list := func(id chunk.ID) error {
		if err := missing(id); err != nil {
			return err
		}
		_, err := w.load(ctx, id)
		if Damaged(ctx, err) {
			first = cmp.Or(first, err)
			return tree.ErrSkipList // there may be others
		}
		return err
	}
	for i := range n.Entries {
		if err := note(n.Entries[i].Content.All(ctx, w.r.Chunk, list, missing)); err != nil {
			return err
		}
	}
	for _, child := range n.Children {
		if err := note(w.node(ctx, child.ID, int(n.Level))); err != nil {
			return err
		}
	}
	return first
}

func (w *Wholeness) load(ctx context.Context, id chunk.ID) ([]byte, error) {
	b, err := w.r.Chunk(ctx, id)
	if w.Unread != nil && Damaged(ctx, err) {
		w.Unread(id)
	}
	return b, err
}
