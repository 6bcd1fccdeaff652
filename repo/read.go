package repo

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
	"github.com/snap-backup/snap/repo/tree"
)

// Chunk returns the bytes of a chunk, which the caller must not change. They
// have been authenticated and have this ID, or there is an error; ErrDamaged
// if the chunk is missing or wrong.
func (r *Repo) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	// A restore out of the cache must stop as soon as any other.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	loc, ok := r.index.Lookup(id)
	if !ok {
		return nil, r.unknown(id)
	}
	b, err := r.cache.load(ctx, loc.Block, func() (decoded, error) { return r.block(ctx, loc.Block, 0, detours{}) })
	var data []byte
	if err == nil {
		data, err = r.cutChunk(b.plain, loc, id)
	}
	if err != nil {
		return r.otherCopy(ctx, id, loc.Block, err)
	}
	return data, nil
}

// cutChunk takes a chunk out of its decoded block and checks its ID.
func (r *Repo) cutChunk(plain []byte, loc index.Location, id chunk.ID) ([]byte, error) {
	data := plain[loc.Start : loc.Start+loc.Size]
	if err := r.checkID(data, loc.Pack, id); err != nil {
		return nil, err
	}
	return data, nil
}

func (r *Repo) checkID(data []byte, from pack.ID, id chunk.ID) error {
	h, _ := r.hashers.Get().(*chunk.Hasher)
	defer r.hashers.Put(h)
	if h.ID(data) != id {
		return &DamageError{packName(from), fmt.Errorf("chunk %s has other bytes than its ID says", id.Short())}
	}
	return nil
}

// block reads and decodes one block. above is the number of blocks that are
// waiting for it as their dictionary; by is shared by all blocks on one way.
func (r *Repo) block(ctx context.Context, ref index.BlockRef, above int, by detours) (decoded, error) {
	if above > pack.MaxDepth {
		return decoded{}, errTooDeep()
	}
	id, b := r.index.Block(ref)
	dict, depth, err := r.dictionary(ctx, b.Dict, above+1, by)
	if err != nil {
		return decoded{}, err
	}
	defer dict.free()
	sealed := r.scratch.take(int(b.Stored))
	defer sealed.free()
	if err := r.readSealed(ctx, id, sealed.b, int64(b.Offset)); err != nil {
		return decoded{}, err
	}
	plain, err := r.decode(nil, id, sealed.b, &b, dict.b)
	return decoded{plain, depth}, err
}

// readSealed fills sealed with the bytes of a pack from an offset on.
func (r *Repo) readSealed(ctx context.Context, id pack.ID, sealed []byte, offset int64) error {
	n, err := r.be.ReadAt(ctx, packName(id), sealed, offset)
	if n == len(sealed) {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, backend.ErrNotExist) {
		return &DamageError{packName(id), err}
	}
	return err
}

func errTooDeep() error {
	return &DamageError{"", fmt.Errorf("a chain of more than %d dictionaries", pack.MaxDepth)}
}

// decode opens the sealed bytes of a block of pack id. It uses the memory of
// dst if that is large enough.
func (r *Repo) decode(dst []byte, id pack.ID, sealed []byte, b *pack.Block, dict []byte) ([]byte, error) {
	codec, _ := r.codecs.Get().(*pack.Codec)
	defer r.codecs.Put(codec)
	plain, err := codec.Decode(dst[:0], sealed, b, dict)
	if errors.Is(err, pack.ErrDamaged) || errors.Is(err, crypto.ErrAuth) {
		return nil, &DamageError{packName(id), err}
	}
	return plain, err
}

// dictionary puts together the chunks that form a block's dictionary, to be
// given back with free. Their blocks come from the cache or are decoded here;
// waiting for another goroutine's load could be waiting for oneself. It returns
// also the depth of the block that uses it.
//
// The IDs of these chunks are not checked: those of the chunks that come out of
// the decoded block are. Whoever keeps what was made with a dictionary without
// such a check has to call checkDictionary.
func (r *Repo) dictionary(ctx context.Context, ids []chunk.ID, above int, by detours) (dict scratch, depth int, err error) {
	if len(ids) == 0 {
		return scratch{}, 0, nil
	}
	locs := make([]index.Location, len(ids))
	size := 0
	for i, id := range ids {
		loc, ok := r.index.Lookup(id)
		if !ok {
			return scratch{}, 0, fmt.Errorf("dictionary: %w", r.unknown(id))
		}
		if size += int(loc.Size); size > pack.MaxDictSize {
			return scratch{}, 0, &DamageError{"", fmt.Errorf("a dictionary of more than %d bytes", pack.MaxDictSize)}
		}
		locs[i] = loc
	}
	dict = r.scratch.take(size)
	at := 0
	var base decoded
	var from index.BlockRef // of base
	for i, loc := range locs {
		if i == 0 || loc.Block != from {
			if base, loc, err = r.base(ctx, ids[i], loc, above, by); err != nil {
				dict.free()
				return scratch{}, 0, err
			}
			from = loc.Block
		}
		if depth = max(depth, base.depth+1); depth > pack.MaxDepth {
			dict.free()
			return scratch{}, 0, errTooDeep()
		}
		at += copy(dict.b[at:], base.plain[loc.Start:loc.Start+loc.Size])
	}
	return dict, depth, nil
}

// soundDictionary is dictionary with the IDs of its chunks checked, for what is
// to be kept.
func (r *Repo) soundDictionary(ctx context.Context, ids []chunk.ID) (scratch, error) {
	dict, _, err := r.dictionary(ctx, ids, 1, detours{})
	if err != nil {
		return dict, err
	}
	if err := r.checkDictionary(ids, dict.b); err != nil {
		dict.free()
		return scratch{}, err
	}
	return dict, nil
}

// checkDictionary checks the IDs of the chunks in a dictionary.
func (r *Repo) checkDictionary(ids []chunk.ID, dict []byte) error {
	for _, id := range ids {
		loc, ok := r.index.Lookup(id)
		if !ok || int(loc.Size) > len(dict) {
			return fmt.Errorf("dictionary: %w", r.unknown(id))
		}
		if err := r.checkID(dict[:loc.Size], loc.Pack, id); err != nil {
			return fmt.Errorf("dictionary: %w", err)
		}
		dict = dict[loc.Size:]
	}
	return nil
}

// blame finds out why what was decoded from a block is wrong: it returns the
// first error in the blocks that its dictionary comes from, or err.
func (r *Repo) blame(ctx context.Context, ref index.BlockRef, err error, seen map[index.BlockRef]bool) error {
	if seen[ref] || ctx.Err() != nil {
		return err
	}
	seen[ref] = true
	_, ids := r.index.Dependencies(ref)
	for _, id := range ids {
		loc, ok := r.index.Lookup(id)
		if !ok {
			continue
		}
		b, bad := r.baseBlock(ctx, loc.Block, 1, nil)
		if bad == nil {
			_, bad = r.cutChunk(b.plain, loc, id)
		}
		if errors.Is(bad, ErrDamaged) {
			return r.blame(ctx, loc.Block, bad, seen)
		}
	}
	return err
}

// writeChunk writes a chunk, checked, to w. One that is a block of its own, as
// those of photos are, goes past the cache: nobody will ask for it again.
func (r *Repo) writeChunk(ctx context.Context, w io.Writer, id chunk.ID) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if loc, ok := r.index.Lookup(id); ok && r.index.Single(loc.Block) {
		if n, err := r.writeAlone(ctx, w, id, loc); !errors.Is(err, ErrDamaged) {
			return n, err
		}
		// Chunk knows what to do about it. Nothing has been written.
	}
	data, err := r.Chunk(ctx, id)
	if err != nil {
		return 0, err
	}
	return w.Write(data)
}

// writeAlone is writeChunk for a chunk that is a block of its own. If its error
// is ErrDamaged, it has written nothing.
func (r *Repo) writeAlone(ctx context.Context, w io.Writer, id chunk.ID, loc index.Location) (int, error) {
	_, b := r.index.Block(loc.Block)
	sealed := r.scratch.take(int(b.Stored))
	defer sealed.free()
	if err := r.readSealed(ctx, loc.Pack, sealed.b, int64(b.Offset)); err != nil {
		return 0, err
	}
	plain := r.scratch.take(b.Size())
	defer plain.free()
	data, err := r.decode(plain.b, loc.Pack, sealed.b, &b, nil)
	if err == nil {
		err = r.checkID(data, loc.Pack, id)
	}
	if err != nil {
		return 0, err
	}
	return w.Write(data)
}

// WriteContent writes the bytes of a file to w and checks that they are as
// many as the content says.
func (r *Repo) WriteContent(ctx context.Context, w io.Writer, c *tree.Content) error {
	written := int64(0)
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		if size, ok := r.index.Size(id); ok && written+int64(size) > c.Size {
			return &DamageError{"", fmt.Errorf("a file of %d bytes has more in its chunks", c.Size)}
		}
		n, err := r.writeChunk(ctx, w, id)
		written += int64(n)
		return err
	})
	if err != nil {
		return treeDamage(err)
	}
	if written != c.Size {
		return &DamageError{"", fmt.Errorf("a file of %d bytes has %d in its chunks", c.Size, written)}
	}
	return nil
}

// SameContent reports whether src holds exactly the bytes of a content. It
// compares chunk IDs, so nothing of the content itself is read from the
// repository.
func (r *Repo) SameContent(ctx context.Context, src io.Reader, c *tree.Content) (bool, error) {
	h, _ := r.hashers.Get().(*chunk.Hasher)
	defer r.hashers.Put(h)
	differs := errors.New("differs")
	var buf []byte
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		size, ok := r.index.Size(id)
		if !ok {
			return r.unknown(id)
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
		return false, treeDamage(err)
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

// treeDamage marks a node that was read but makes no sense as damage.
func treeDamage(err error) error {
	if errors.Is(err, tree.ErrDamaged) && !errors.Is(err, ErrDamaged) {
		return &DamageError{"", err}
	}
	return err
}
