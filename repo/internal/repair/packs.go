package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/replace"
)

// DamagedPack describes a damaged pack and how many of its blocks were saved.
type DamagedPack struct {
	Pack       layout.FileID `json:"pack"`
	Text       string        `json:"text"` // what is wrong with it
	Blocks     int           `json:"blocks"`
	Saved      int           `json:"saved_blocks"`
	LostChunks int           `json:"lost_chunks"` // that are in no other block
	LostBytes  int64         `json:"lost_bytes"`  // of plaintext
}

// PackRepair says what Packs found and did, or would do.
type PackRepair struct {
	Index   *IndexRepair  `json:"index"`
	Packs   int           `json:"packs"` // that were read
	Bytes   int64         `json:"bytes"`
	Damaged []DamagedPack `json:"damaged"`
	// Corrected are packs of which a few bytes were wrong. They are as they were written
	// again.
	Corrected []layout.FileID `json:"corrected"`
	Written   int64           `json:"written_bytes"`
	// Denied are packs that this process has no permission to read. They stay, since
	// they may be good.
	Denied []layout.FileID `json:"denied"`
}

// LostChunks counts the chunks that are in no other block.
func (x *PackRepair) LostChunks() (n int) {
	for _, d := range x.Damaged {
		n += d.LostChunks
	}
	return n
}

// Packs saves the sound blocks of damaged packs and retires these packs, as
// repo.Repo.RepairPacks describes.
func Packs(ctx context.Context, r *store.Store, opts Options) (*PackRepair, error) {
	x, err := Index(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	if !opts.DryRun && len(r.DamagedIndex) > 0 {
		return nil, r.DamagedIndex[0] // of the new index: packs without headers would be passed over
	}
	rep := &PackRepair{Index: x, Damaged: []DamagedPack{}, Corrected: []layout.FileID{}, Denied: []layout.FileID{}}
	if opts.DryRun && x.Changed() {
		if _, err := r.IndexFromPacks(ctx, r.Index, nil); err != nil {
			return nil, err
		}
		r.Index.Compact()
	}
	total := int64(0)
	packs := r.Index.Packs()
	for _, p := range packs {
		total += p.Size
	}
	var bad []index.Pack
	note := func(p index.Pack, damage error) {
		bad = append(bad, p)
		rep.Damaged = append(rep.Damaged, DamagedPack{Pack: layout.FileID(p.ID), Text: damage.Error(), Blocks: len(p.Blocks)})
	}
	buf := []byte{}
	for _, p := range packs {
		opts.Tell("reading packs", rep.Bytes, total)
		damage, err := PackDamage(ctx, r, p, &buf)
		if err != nil {
			return nil, err
		}
		rep.Packs++
		rep.Bytes += p.Size
		switch {
		case damage == nil:
		case backend.IsDenied(damage):
			rep.Denied = append(rep.Denied, layout.FileID(p.ID))
		case errors.Is(damage, errWrongBytes):
			right := r.CorrectPack(buf, p, true)
			if right == nil {
				note(p, damage)
				break
			}
			rep.Corrected = append(rep.Corrected, layout.FileID(p.ID))
			if opts.DryRun {
				break
			}
			if err := replace.Put(ctx, r.Backend, layout.PackName(p.ID), right); err != nil {
				return rep, err
			}
		default:
			note(p, damage)
		}
	}
	if len(bad) == 0 {
		return rep, nil
	}
	opts.Tell("saving blocks", 0, 0)
	if err := salvage(ctx, r, bad, rep, opts.DryRun); err != nil || opts.DryRun {
		return rep, err
	}
	var ids []layout.FileID
	retired := map[pack.ID]bool{}
	for _, p := range bad {
		ids = append(ids, layout.FileID(p.ID))
		retired[p.ID] = true
	}
	if _, err := r.PutPruneList(ctx, ids); err != nil {
		return rep, err
	}
	if err := indexfile.Unlist(ctx, r, retired); err != nil {
		return rep, err
	}
	return rep, r.LoadListed(ctx)
}

// errWrongBytes says that a pack has the bytes of no pack, or of another one.
var errWrongBytes = errors.New("its bytes do not match its name")

// PackDamage returns what is wrong with a pack, or nil. A pack that cannot be read
// counts as damaged. It is an error if the store does not answer.
func PackDamage(ctx context.Context, r *store.Store, p index.Pack, buf *[]byte) (damage, err error) {
	name := layout.PackName(p.ID)
	for range store.ReadTries {
		if err = readPack(ctx, r, name, buf); err == nil || ctx.Err() != nil || !errors.Is(err, store.ErrUnreadable) {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, backend.ErrNotExist):
		return errors.New("it is missing"), nil
	case errors.Is(err, backend.ErrTooLarge):
		return fmt.Errorf("it has more bytes than a pack can have: %w", err), nil
	case err != nil && !errors.Is(err, store.ErrDamaged):
		return nil, err
	case err != nil:
		var d *store.DamageError
		errors.As(err, &d)
		return d.Err, nil
	case pack.ID(blake.Sum(*buf)) != p.ID:
		return errWrongBytes, nil
	}
	// Whoever may add files can give any bytes their right name.
	if _, err := pack.ReadHeader(bytes.NewReader(*buf), int64(len(*buf)), r.PackSealer); errors.Is(err, pack.ErrDamaged) {
		return err, nil
	}
	return nil, nil
}

// readPack reads a complete pack into the memory of buf.
func readPack(ctx context.Context, r *store.Store, name string, buf *[]byte) error {
	info, err := r.Backend.Stat(ctx, name)
	if err != nil {
		return store.Judge(ctx, r.Backend, name, err)
	}
	if info.Size > pack.MaxSize {
		return fmt.Errorf("%d bytes: %w", info.Size, backend.ErrTooLarge)
	}
	if int64(cap(*buf)) < info.Size {
		*buf = make([]byte, info.Size)
	}
	*buf = (*buf)[:info.Size]
	n, err := r.Backend.ReadAt(ctx, name, *buf, 0)
	if errors.Is(err, io.EOF) {
		*buf, err = (*buf)[:n], nil
	}
	return store.Judge(ctx, r.Backend, name, err)
}

// salvage stores the sound blocks of damaged packs in new packs.
func salvage(ctx context.Context, r *store.Store, bad []index.Pack, rep *PackRepair, dryRun bool) error {
	var w *writer.Writer
	if !dryRun {
		w = writer.New(ctx, r)
		defer w.Close()
	}
	saved := map[chunk.ID]bool{}
	lost := map[chunk.ID]uint32{}
	packOf := map[chunk.ID]int{} // position in bad
	damaged := map[pack.ID]bool{}
	for _, p := range bad {
		damaged[p.ID] = true
	}
	elsewhere := func(id chunk.ID) bool {
		return slices.ContainsFunc(r.Index.Copies(id), func(l index.Location) bool { return !damaged[l.Pack] })
	}
	for i, p := range bad {
		for _, ref := range p.Blocks {
			_, b := r.Index.Block(ref)
			// An interrupted repair may have saved the block.
			if !slices.ContainsFunc(b.Chunks, func(c pack.Chunk) bool { return !elsewhere(c.ID) }) {
				rep.Damaged[i].Saved++
				continue
			}
			sealed, sound, err := SoundBlock(ctx, r, ref)
			if err != nil {
				return err
			}
			if !sound {
				for _, c := range b.Chunks {
					lost[c.ID], packOf[c.ID] = c.Length, i
				}
				continue
			}
			rep.Damaged[i].Saved++
			for _, c := range b.Chunks {
				saved[c.ID] = true
			}
			if w != nil {
				if err := w.AddBlock(p.Kind, sealed, b); err != nil {
					return err
				}
			}
		}
	}
	for id, size := range lost {
		if !saved[id] && !elsewhere(id) {
			rep.Damaged[packOf[id]].LostChunks++
			rep.Damaged[packOf[id]].LostBytes += int64(size)
		}
	}
	if w == nil {
		return nil
	}
	err := w.Finish(ctx)
	rep.Written = w.Stats().Stored
	return err
}

// readRetrying fills p with the bytes of a file from off on. It returns false if
// the file is too short or cannot be read there, and an error if nothing in the
// store can be read.
func readRetrying(ctx context.Context, r *store.Store, name string, p []byte, off int64) (bool, error) {
	var failed error
	for range store.ReadTries {
		n, err := r.Backend.ReadAt(ctx, name, p, off)
		if n == len(p) {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, backend.ErrNotExist) {
			return false, nil
		}
		if failed = err; err == nil {
			failed = io.ErrNoProgress
		}
	}
	if !backend.Unreadable(ctx, r.Backend, failed) {
		return false, fmt.Errorf("read %s: %w", name, failed)
	}
	return false, nil
}

// SoundBlock returns the sealed bytes of a block, and whether they are authentic.
// If the block's dictionary can be read, it checks the chunks as well. If not, the
// block still counts as sound, since the dictionary may be restored later.
func SoundBlock(ctx context.Context, r *store.Store, ref index.BlockRef) (sealed []byte, sound bool, err error) {
	id, b := r.Index.Block(ref)
	sealed = make([]byte, b.Stored)
	if ok, err := readRetrying(ctx, r, layout.PackName(id), sealed, int64(b.Offset)); !ok {
		return nil, false, err
	}
	if _, err := r.BlockSealer.Open(nil, sealed, nil); err != nil {
		if sealed = r.BlockSealer.Correct(sealed, nil, true); sealed == nil {
			return nil, false, nil
		}
	}
	dict, _, err := r.Dictionary(ctx, b.Dict, 1, store.Detours{})
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if err != nil || r.CheckDictionary(b.Dict, dict.B) != nil {
		return sealed, true, nil
	}
	defer dict.Free()
	plain, err := r.Decode(nil, id, sealed, &b, dict.B)
	if err != nil {
		return nil, false, nil
	}
	for _, c := range b.Chunks {
		if r.CheckID(plain[:c.Length], id, c.ID) != nil {
			return nil, false, nil
		}
		plain = plain[c.Length:]
	}
	return sealed, true, nil
}
