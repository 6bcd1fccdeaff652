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
	loc, ok := r.index.Lookup(id)
	if !ok {
		return nil, &DamageError{"", fmt.Errorf("chunk %s is in no index", id.Short())}
	}
	plain, err := r.cache.load(ctx, loc.Block, func() ([]byte, error) { return r.block(ctx, loc.Block, 0) })
	if err != nil {
		return nil, err
	}
	return r.cutChunk(plain, loc, id)
}

// cutChunk takes a chunk out of its decoded block and checks its ID.
func (r *Repo) cutChunk(plain []byte, loc index.Location, id chunk.ID) ([]byte, error) {
	data := plain[loc.Start : loc.Start+loc.Size]
	h, _ := r.hashers.Get().(*chunk.Hasher)
	defer r.hashers.Put(h)
	if h.ID(data) != id {
		return nil, &DamageError{packName(loc.Pack), fmt.Errorf("chunk %s has other bytes than its ID says", id.Short())}
	}
	return data, nil
}

// block reads and decodes one block. depth is the number of blocks that are
// waiting for it as their dictionary.
func (r *Repo) block(ctx context.Context, ref index.BlockRef, depth int) ([]byte, error) {
	if depth > pack.MaxDepth {
		return nil, &DamageError{"", fmt.Errorf("a chain of more than %d dictionaries", pack.MaxDepth)}
	}
	id, b := r.index.Block(ref)
	sealed := make([]byte, b.Stored)
	if n, err := r.be.ReadAt(ctx, packName(id), sealed, int64(b.Offset)); n < len(sealed) {
		if errors.Is(err, io.EOF) || errors.Is(err, backend.ErrNotExist) {
			return nil, &DamageError{packName(id), err}
		}
		return nil, err
	}
	dict, err := r.dictionary(ctx, b.Dict, depth+1)
	if err != nil {
		return nil, err
	}
	return r.decode(id, sealed, &b, dict)
}

// decode opens the sealed bytes of a block of pack id.
func (r *Repo) decode(id pack.ID, sealed []byte, b *pack.Block, dict []byte) ([]byte, error) {
	codec, _ := r.codecs.Get().(*pack.Codec)
	defer r.codecs.Put(codec)
	plain, err := codec.Decode(nil, sealed, b, dict)
	if errors.Is(err, pack.ErrDamaged) || errors.Is(err, crypto.ErrAuth) {
		return nil, &DamageError{packName(id), err}
	}
	return plain, err
}

// dictionary puts together the chunks that form a block's dictionary. Their
// blocks come from the cache or are decoded here; waiting for another
// goroutine's load could be waiting for oneself.
func (r *Repo) dictionary(ctx context.Context, ids []chunk.ID, depth int) ([]byte, error) {
	var dict []byte
	for _, id := range ids {
		loc, ok := r.index.Lookup(id)
		if !ok {
			return nil, &DamageError{"", fmt.Errorf("chunk %s, a dictionary, is in no index", id.Short())}
		}
		if len(dict)+int(loc.Size) > pack.MaxDictSize {
			return nil, &DamageError{"", fmt.Errorf("a dictionary of more than %d bytes", pack.MaxDictSize)}
		}
		plain, ok := r.cache.get(loc.Block)
		if !ok {
			var err error
			if plain, err = r.block(ctx, loc.Block, depth); err != nil {
				return nil, fmt.Errorf("dictionary: %w", err)
			}
			r.cache.put(loc.Block, plain)
		}
		data, err := r.cutChunk(plain, loc, id)
		if err != nil {
			return nil, fmt.Errorf("dictionary: %w", err)
		}
		dict = append(dict, data...)
	}
	return dict, nil
}

// WriteContent writes the bytes of a file to w and checks that they are as
// many as the content says.
func (r *Repo) WriteContent(ctx context.Context, w io.Writer, c *tree.Content) error {
	written := int64(0)
	err := c.Chunks(ctx, r.Chunk, func(id chunk.ID) error {
		data, err := r.Chunk(ctx, id)
		if err != nil {
			return err
		}
		if written+int64(len(data)) > c.Size {
			return &DamageError{"", fmt.Errorf("a file of %d bytes has more in its chunks", c.Size)}
		}
		n, err := w.Write(data)
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

// Walk calls fn for every entry of a snapshot in order, or for those of one
// domain.
func (r *Repo) Walk(ctx context.Context, s *Snapshot, domain string, fn func(*tree.Entry) error) error {
	return treeDamage(tree.WalkDomain(ctx, r.Chunk, s.Root, domain, fn))
}

// treeDamage marks a node that was read but makes no sense as damage.
func treeDamage(err error) error {
	if errors.Is(err, tree.ErrDamaged) && !errors.Is(err, ErrDamaged) {
		return &DamageError{"", err}
	}
	return err
}
