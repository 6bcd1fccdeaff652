package heal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/repair"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
)

// ContentReport says what FromContent found and did, or would do.
type ContentReport struct {
	Packs         *repair.PackRepair `json:"packs"`
	MissingChunks int                `json:"missing_chunks"` // of files, before healing
	MissingLists  int                `json:"missing_lists"`  // nodes and content lists, which no other repository has
	Snapshots     int                `json:"snapshots"`      // that were read in the other repository
	FoundChunks   int                `json:"found_chunks"`
	FoundBytes    int64              `json:"found_bytes"`
}

// contentHealer is one run of FromContent.
type contentHealer struct {
	r, other *store.Store
	dryRun   bool
	rep      *ContentReport

	missing map[chunk.ID]bool     // missing chunks, by their IDs in this repository
	files   map[tree.Key]struct{} // files that lack chunks
	devices map[string]bool       // devices with such files
	writer  *writer.ContentWriter
	cutter  *chunk.Cutter
	hasher  *chunk.Hasher
	buf     []byte
}

// FromContent heals a repository from the content of another one, as
// repo.Repo.HealFromContent describes.
func FromContent(ctx context.Context, r *store.Store, other *store.Store, opts repair.Options) (*ContentReport, error) {
	packs, err := repair.Packs(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	h := &contentHealer{
		r: r, other: other, dryRun: opts.DryRun, rep: &ContentReport{Packs: packs},
		missing: map[chunk.ID]bool{}, files: map[tree.Key]struct{}{}, devices: map[string]bool{},
		cutter: chunk.NewCutter(r.Config.Polynomial), hasher: r.NewHasher(), buf: make([]byte, chunk.MaxSize),
	}
	opts.Tell("looking at snapshots", 0, 0)
	if err := h.findMissing(ctx); err != nil {
		return nil, err
	}
	h.rep.MissingChunks = len(h.missing)
	if len(h.missing) == 0 {
		return h.rep, nil
	}
	w := writer.New(ctx, r)
	defer w.Close()
	h.writer = w.NewContentWriter()
	list, _, err := record.List(ctx, other)
	if err != nil {
		return nil, fmt.Errorf("the other repository: %w", err)
	}
	seen := other.Index.NewChunkSet()
	for i := len(list) - 1; i >= 0 && len(h.missing) > 0; i-- {
		opts.Tell("looking through the other repository", int64(len(list)-i-1), int64(len(list)))
		s := list[i]
		if !h.devices[record.PlainUDID(s.Device.UDID)] {
			continue
		}
		h.rep.Snapshots++
		err := record.Walk(ctx, other, s, "", func(e *tree.Entry) error {
			hasNew := false // whether the file has a chunk that no earlier file had
			if err := h.offerChunks(ctx, e, func(id chunk.ID) bool {
				_, added, _ := seen.Add(id)
				hasNew = hasNew || added
				return added
			}); err != nil {
				return err
			}
			if _, lacks := h.files[e.Key()]; lacks && hasNew && len(h.missing) > 0 {
				return h.cutFile(ctx, e)
			}
			return nil
		})
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			return nil, fmt.Errorf("the other repository: %w", err)
		}
	}
	if opts.DryRun {
		return h.rep, nil
	}
	if err := h.writer.Flush(ctx); err != nil {
		return nil, err
	}
	if err := w.Finish(ctx); err != nil {
		return nil, err
	}
	return h.rep, r.LoadIndex(ctx)
}

// findMissing finds the chunks that are missing here.
func (h *contentHealer) findMissing(ctx context.Context) error {
	list, _, err := record.List(ctx, h.r)
	if err != nil {
		return err
	}
	damaged := map[chunk.ID]bool{} // in a dry run the index still lists damaged packs
	for _, d := range h.rep.Packs.Damaged {
		if !h.dryRun {
			break
		}
		for _, p := range h.r.Index.Packs() {
			if layout.FileID(p.ID) != d.Pack {
				continue
			}
			for _, ref := range p.Blocks {
				_, sound, err := repair.SoundBlock(ctx, h.r, ref)
				if err != nil {
					return err
				}
				_, b := h.r.Index.Block(ref)
				for _, c := range b.Chunks {
					damaged[c.ID] = damaged[c.ID] || !sound
				}
			}
		}
	}
	seen := map[chunk.ID]bool{}
	for _, s := range list {
		w := record.NodeWalk{Load: h.r.Chunk, Seen: seen}
		w.OnEntry = func(e *tree.Entry) error {
			lacks := false
			err := e.Content.All(ctx, h.r.Chunk, nil, func(id chunk.ID) error {
				if !h.r.Index.Has(id) || damaged[id] {
					h.missing[id], lacks = true, true
				}
				return nil
			})
			if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, tree.ErrDamaged) {
				return err
			}
			if err != nil {
				h.rep.MissingLists++
			}
			if lacks {
				h.files[e.Key()] = struct{}{}
				h.devices[record.PlainUDID(s.Device.UDID)] = true
			}
			return nil
		}
		w.OnLost = func(record.LostNode, error) error { h.rep.MissingLists++; return nil }
		if err := w.Node(ctx, s.Root, -1); err != nil {
			return err
		}
		if s.Lost != nil && s.Lost.Tree != nil {
			if err := w.Node(ctx, *s.Lost.Tree, -1); err != nil {
				return err
			}
		}
	}
	return nil
}

// offerChunks calls offer for the chunks of a file in the other repository, but only
// for chunks for which isNew returns true.
func (h *contentHealer) offerChunks(ctx context.Context, e *tree.Entry, isNew func(chunk.ID) bool) error {
	err := e.Content.All(ctx, h.other.Chunk, nil, func(id chunk.ID) error {
		if !isNew(id) {
			return nil
		}
		b, err := h.other.Chunk(ctx, id)
		if err != nil {
			if errors.Is(err, store.ErrDamaged) {
				return nil // the other repository has lost it, too
			}
			return err
		}
		return h.offer(ctx, b)
	})
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged) {
		return nil
	}
	return err
}

// cutFile cuts a file as this repository would, and calls offer for each chunk. Photos and
// films are cut in both ways, since earlier versions cut them by content.
func (h *contentHealer) cutFile(ctx context.Context, e *tree.Entry) error {
	media, err := h.cut(ctx, e, false)
	if err == nil && media && len(h.missing) > 0 {
		_, err = h.cut(ctx, e, true)
	}
	return err
}

// cut cuts a file in one way. It reports whether the file is a photo or film.
func (h *contentHealer) cut(ctx context.Context, e *tree.Entry, byContent bool) (media bool, err error) {
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() { pw.CloseWithError(h.other.WriteContent(ctx, pw, &e.Content)) }()
	if err := h.cutter.Reset(pr); err != nil {
		return false, h.ignoreDamage(ctx, err)
	}
	media = h.cutter.Media()
	if byContent {
		h.cutter.CutMediaByContent()
	}
	for {
		b, err := h.cutter.Next(h.buf)
		if errors.Is(err, io.EOF) {
			return media, nil
		}
		if err != nil {
			return media, h.ignoreDamage(ctx, err)
		}
		if err := h.offer(ctx, b); err != nil {
			return media, err
		}
	}
}

// ignoreDamage returns nil for damage of the other repository.
func (h *contentHealer) ignoreDamage(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, tree.ErrDamaged) {
		return nil
	}
	return err
}

// offer stores b if it is a missing chunk.
func (h *contentHealer) offer(ctx context.Context, b []byte) error {
	id := h.hasher.ID(b)
	if !h.missing[id] {
		return nil
	}
	delete(h.missing, id)
	h.rep.FoundChunks++
	h.rep.FoundBytes += int64(len(b))
	if h.dryRun {
		return nil
	}
	_, err := h.writer.AddChunk(ctx, bytes.Clone(b))
	return err
}
