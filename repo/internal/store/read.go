package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/tree"
)

// Chunk returns the bytes of a chunk, as repo.Repo.Chunk describes.
func (r *Store) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	// Stop even if the cache could answer the read.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	loc, ok := r.Index.Lookup(id)
	if !ok {
		return nil, r.UnknownChunk(id)
	}
	b, err := r.Cache.load(ctx, loc.Block, func() (Decoded, error) { return r.readBlock(ctx, loc.Block, 0, Detours{}) })
	var data []byte
	if err == nil {
		data, err = r.cutChunk(b.Plain, loc, id)
	}
	if err != nil {
		return r.otherCopy(ctx, id, loc.Block, err)
	}
	return data, nil
}

// CheckCopy reads the copy of a chunk that is at a location, and no other.
func (r *Store) CheckCopy(ctx context.Context, id chunk.ID, loc index.Location) error {
	b, err := r.Cache.load(ctx, loc.Block, func() (Decoded, error) { return r.readBlock(ctx, loc.Block, 0, Detours{}) })
	if err == nil {
		_, err = r.cutChunk(b.Plain, loc, id)
	}
	return err
}

// cutChunk returns a chunk of a decoded block after checking its ID.
func (r *Store) cutChunk(plain []byte, loc index.Location, id chunk.ID) ([]byte, error) {
	data := plain[loc.Start : loc.Start+loc.Size]
	if err := r.CheckID(data, loc.Pack, id); err != nil {
		return nil, err
	}
	return data, nil
}

// CheckID compares the bytes of a chunk, which were read from a pack, with its ID.
func (r *Store) CheckID(data []byte, from pack.ID, id chunk.ID) error {
	h, _ := r.hashers.Get().(*chunk.Hasher)
	defer r.hashers.Put(h)
	if h.ID(data) != id {
		return &DamageError{layout.PackName(from), fmt.Errorf("the bytes of chunk %s do not match its ID", id.Short())}
	}
	return nil
}

// readBlock reads and decodes one block. above is the number of blocks in the chain
// that need it.
func (r *Store) readBlock(ctx context.Context, ref index.BlockRef, above int, by Detours) (Decoded, error) {
	if above > pack.MaxDepth {
		return Decoded{}, errTooDeep()
	}
	id, b := r.Index.Block(ref)
	dict, depth, err := r.Dictionary(ctx, b.Dict, above+1, by)
	if err != nil {
		return Decoded{}, err
	}
	defer dict.Free()
	sealed := r.Scratch.Take(int(b.Stored))
	defer sealed.Free()
	if err := r.ReadSealed(ctx, id, sealed.B, int64(b.Offset)); err != nil {
		return Decoded{}, err
	}
	plain, err := r.Decode(nil, id, sealed.B, &b, dict.B)
	return Decoded{plain, depth}, err
}

// ReadSealed fills sealed with the bytes of a pack from an offset on.
func (r *Store) ReadSealed(ctx context.Context, id pack.ID, sealed []byte, offset int64) error {
	name := layout.PackName(id)
	read := r.Backend.ReadAt
	if near, ok := r.Backend.(backend.Keeper); ok && r.Index != nil && r.Index.IsMetadata(id) {
		read = near.ReadKept
	}
	n, err := read(ctx, name, sealed, offset)
	if n < len(sealed) && again(ctx, err) {
		n, err = read(ctx, name, sealed, offset)
	}
	if n == len(sealed) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return Judge(ctx, r.Backend, name, err)
}

func errTooDeep() error {
	return &DamageError{"", fmt.Errorf("a chain of more than %d dictionaries", pack.MaxDepth)}
}

// Decode opens the sealed bytes of a block of pack id. It uses the memory of
// dst if that is large enough. It corrects a few wrong bytes.
func (r *Store) Decode(dst []byte, id pack.ID, sealed []byte, b *pack.Block, dict []byte) ([]byte, error) {
	codec, _ := r.codecs.Get().(*pack.Codec)
	defer r.codecs.Put(codec)
	plain, err := codec.Decode(dst[:0], sealed, b, dict)
	if errors.Is(err, crypto.ErrAuth) {
		if right := r.Correct(id, sealed); right != nil {
			plain, err = codec.Decode(dst[:0], right, b, dict)
		}
	}
	if errors.Is(err, pack.ErrDamaged) || errors.Is(err, crypto.ErrAuth) {
		return nil, &DamageError{layout.PackName(id), err}
	}
	return plain, err
}

// Dictionary returns a block's dictionary, which the caller frees, and the depth of
// the block that uses it. It takes other blocks from the cache or decodes them. It
// never waits for another goroutine that is loading a block, since that could
// deadlock.
//
// It does not check the IDs of the chunks, since readers check the chunk IDs of the
// block that is decoded with the dictionary. A caller that stores something made
// with the dictionary must call CheckDictionary.
func (r *Store) Dictionary(ctx context.Context, ids []chunk.ID, above int, by Detours) (dict Scratch, depth int, err error) {
	if len(ids) == 0 {
		return Scratch{}, 0, nil
	}
	locs := make([]index.Location, len(ids))
	size := 0
	for i, id := range ids {
		loc, ok := r.Index.Lookup(id)
		if !ok {
			return Scratch{}, 0, fmt.Errorf("dictionary: %w", r.UnknownChunk(id))
		}
		if size += int(loc.Size); size > pack.MaxDictSize {
			return Scratch{}, 0, &DamageError{"", fmt.Errorf("a dictionary of more than %d bytes", pack.MaxDictSize)}
		}
		locs[i] = loc
	}
	dict = r.Scratch.Take(size)
	at := 0
	var base Decoded
	var from index.BlockRef // of base
	for i, loc := range locs {
		if i == 0 || loc.Block != from {
			if base, loc, err = r.decodeBase(ctx, ids[i], loc, above, by); err != nil {
				dict.Free()
				return Scratch{}, 0, err
			}
			from = loc.Block
		}
		if depth = max(depth, base.Depth+1); depth > pack.MaxDepth {
			dict.Free()
			return Scratch{}, 0, errTooDeep()
		}
		at += copy(dict.B[at:], base.Plain[loc.Start:loc.Start+loc.Size])
	}
	return dict, depth, nil
}

// SoundDictionary calls Dictionary and CheckDictionary.
func (r *Store) SoundDictionary(ctx context.Context, ids []chunk.ID) (Scratch, error) {
	dict, _, err := r.Dictionary(ctx, ids, 1, Detours{})
	if err != nil {
		return dict, err
	}
	if err := r.CheckDictionary(ids, dict.B); err != nil {
		dict.Free()
		return Scratch{}, err
	}
	return dict, nil
}

// CheckDictionary checks the IDs of the chunks in a dictionary.
func (r *Store) CheckDictionary(ids []chunk.ID, dict []byte) error {
	for _, id := range ids {
		loc, ok := r.Index.Lookup(id)
		if !ok || int(loc.Size) > len(dict) {
			return fmt.Errorf("dictionary: %w", r.UnknownChunk(id))
		}
		if err := r.CheckID(dict[:loc.Size], loc.Pack, id); err != nil {
			return fmt.Errorf("dictionary: %w", err)
		}
		dict = dict[loc.Size:]
	}
	return nil
}

// FindCause finds out why decoding a block failed with err. It returns the first
// error in the blocks of its dictionary, or err.
func (r *Store) FindCause(ctx context.Context, ref index.BlockRef, err error, seen map[index.BlockRef]bool) error {
	if seen[ref] || ctx.Err() != nil {
		return err
	}
	seen[ref] = true
	_, ids := r.Index.Dependencies(ref)
	for _, id := range ids {
		loc, ok := r.Index.Lookup(id)
		if !ok {
			continue
		}
		b, bad := r.baseBlock(ctx, loc.Block, 1, nil)
		if bad == nil {
			_, bad = r.cutChunk(b.Plain, loc, id)
		}
		if errors.Is(bad, ErrDamaged) {
			return r.FindCause(ctx, loc.Block, bad, seen)
		}
	}
	return err
}

// writeChunk writes a chunk to w after checking its ID. It does not cache a chunk
// that is alone in its block, such as a chunk of a photo, since it will hardly be
// needed again.
func (r *Store) writeChunk(ctx context.Context, w io.Writer, id chunk.ID) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if loc, ok := r.Index.Lookup(id); ok && r.Index.Single(loc.Block) {
		if n, err := r.writeAlone(ctx, w, id, loc); !errors.Is(err, ErrDamaged) {
			return n, err
		}
		// Nothing was written: let Chunk look for another copy.
	}
	data, err := r.Chunk(ctx, id)
	if err != nil {
		return 0, err
	}
	return w.Write(data)
}

// writeAlone is like writeChunk, but for a chunk that is alone in its block. It
// writes nothing if it fails with ErrDamaged.
func (r *Store) writeAlone(ctx context.Context, w io.Writer, id chunk.ID, loc index.Location) (int, error) {
	_, b := r.Index.Block(loc.Block)
	sealed := r.Scratch.Take(int(b.Stored))
	defer sealed.Free()
	if err := r.ReadSealed(ctx, loc.Pack, sealed.B, int64(b.Offset)); err != nil {
		return 0, err
	}
	plain := r.Scratch.Take(b.Size())
	defer plain.Free()
	data, err := r.Decode(plain.B, loc.Pack, sealed.B, &b, nil)
	if err == nil {
		err = r.CheckID(data, loc.Pack, id)
	}
	if err != nil {
		return 0, err
	}
	return w.Write(data)
}

// WriteContent writes the bytes of a file to w. It fails if their number is not
// c.Size.
func (r *Store) WriteContent(ctx context.Context, w io.Writer, c *tree.Content) error {
	written := int64(0)
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		if size, ok := r.Index.Size(id); ok && written+int64(size) > c.Size {
			return &DamageError{"", fmt.Errorf("a file has %d bytes, but its chunks have more", c.Size)}
		}
		n, err := r.writeChunk(ctx, w, id)
		written += int64(n)
		return err
	})
	if err != nil {
		return TreeDamage(err)
	}
	if written != c.Size {
		return &DamageError{"", fmt.Errorf("a file has %d bytes, but its chunks have %d", c.Size, written)}
	}
	return nil
}

// SameContent reports whether src has exactly the bytes of a content. It compares
// chunk IDs and reads no content from the repository.
func (r *Store) SameContent(ctx context.Context, src io.Reader, c *tree.Content) (bool, error) {
	h, _ := r.hashers.Get().(*chunk.Hasher)
	defer r.hashers.Put(h)
	differs := errors.New("differs")
	var buf []byte
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		size, ok := r.Index.Size(id)
		if !ok {
			return r.UnknownChunk(id)
		}
		if cap(buf) < int(size) {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if _, err := io.ReadFull(src, buf); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return differs
			}
			return err
		}
		if h.ID(buf) != id {
			return differs
		}
		return nil
	})
	if errors.Is(err, differs) {
		return false, nil
	}
	if err != nil {
		return false, TreeDamage(err)
	}
	n, err := io.ReadFull(src, make([]byte, 1))
	if n > 0 || err == nil {
		return false, nil
	}
	if !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// TreeDamage turns tree.ErrDamaged into a DamageError.
func TreeDamage(err error) error {
	if errors.Is(err, tree.ErrDamaged) && !errors.Is(err, ErrDamaged) {
		return &DamageError{"", err}
	}
	return err
}
