package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
)

// verifier reads whole packs. One goroutine uses it.
type verifier struct {
	c      *checker
	codec  *pack.Codec
	hasher *chunk.Hasher
	file   []byte
	plain  []byte
}

func (c *checker) newVerifier() *verifier {
	return &verifier{c: c, codec: pack.NewCodec(c.r.blocks), hasher: c.r.NewHasher()}
}

// verify reads a pack and checks every byte of it: its name, its header
// against the index, and every chunk against its ID. What is wrong goes into
// the report; an error means that the check cannot go on.
func (v *verifier) verify(ctx context.Context, f backend.Info) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fid, _ := fileID(f.Name) // f is one of ours, or it were a leftover
	id := pack.ID(fid)
	p, _ := v.c.r.index.Pack(id)
	fail := func(err error) { v.c.damage(&DamageError{f.Name, err}, packHint) }

	if f.Size > pack.MaxSize {
		fail(fmt.Errorf("has %d bytes, more than any pack", f.Size))
		v.c.markPack(p)
		return nil
	}
	if int64(cap(v.file)) < f.Size {
		v.file = make([]byte, f.Size)
	}
	file := v.file[:f.Size]
	n, err := v.c.r.be.ReadAt(ctx, f.Name, file, 0)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if n < len(file) {
		fail(fmt.Errorf("reading stopped after %d of %d bytes: %w", n, len(file), err))
		file = file[:n]
	}
	if pack.Name(file) != id {
		fail(errors.New("its bytes are not those that its name stands for"))
	} else if h, err := pack.ReadHeader(bytes.NewReader(file), int64(len(file)), v.c.r.packs); err != nil {
		fail(err)
	} else if !v.sameAsIndex(p, h) {
		fail(errors.New("the index says something else about it than its own header"))
	}
	for _, ref := range p.Blocks {
		if err := v.block(ctx, file, ref); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if d := (*DamageError)(nil); errors.As(err, &d) && d.File == "" {
				err = &DamageError{f.Name, d.Err}
			}
			v.c.damage(err, packHint)
			v.c.markBlock(ref)
		}
	}
	return nil
}

func (v *verifier) sameAsIndex(p index.Pack, h pack.Header) bool {
	if p.Kind != h.Kind || len(p.Blocks) != len(h.Blocks) {
		return false
	}
	for i, ref := range p.Blocks {
		if _, b := v.c.r.index.Block(ref); !reflect.DeepEqual(b, h.Blocks[i]) {
			return false
		}
	}
	return true
}

// block decodes one block and checks its chunks.
func (v *verifier) block(ctx context.Context, file []byte, ref index.BlockRef) error {
	id, b := v.c.r.index.Block(ref)
	end := int64(b.Offset) + int64(b.Stored)
	if end > int64(len(file)) {
		return &DamageError{packName(id), fmt.Errorf("block at %d is cut off", b.Offset)}
	}
	dict, _, err := v.c.r.dictionary(ctx, b.Dict, 1)
	if err != nil {
		return err
	}
	defer dict.free()
	plain, err := v.codec.Decode(v.plain[:0], file[b.Offset:end], &b, dict.b)
	if err != nil {
		return &DamageError{packName(id), fmt.Errorf("block at %d: %w", b.Offset, err)}
	}
	v.plain = plain
	for _, c := range b.Chunks {
		if v.hasher.ID(plain[:c.Length]) != c.ID {
			return &DamageError{packName(id), fmt.Errorf("block at %d: chunk %s has other bytes than its ID says", b.Offset, c.ID.Short())}
		}
		plain = plain[c.Length:]
	}
	return nil
}

func (c *checker) markPack(p index.Pack) {
	for _, ref := range p.Blocks {
		c.markBlock(ref)
	}
}

// markBlock notes that the chunks of a block cannot be had from it, and reports
// whether any of them was not bad before. A chunk of which Lookup gives another
// copy is not marked.
func (c *checker) markBlock(ref index.BlockRef) (changed bool) {
	_, b := c.r.index.Block(ref)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range b.Chunks {
		if loc, ok := c.r.index.Lookup(ch.ID); ok && loc.Block == ref && !c.isBad(ch.ID) {
			c.bad[ch.ID] = struct{}{}
			changed = true
		}
	}
	return changed
}
