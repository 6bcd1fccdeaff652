package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// verifier reads packs and decodes blocks. One goroutine uses it.
type verifier struct {
	c      *Checker
	plan   *plan
	codec  *pack.Codec
	hasher *chunk.Hasher
	file   []byte
	plain  []byte   // memory for a block that no other block needs
	spare  [][]byte // memory of blocks that no block needs any more
}

func (c *Checker) newVerifier(p *plan) *verifier {
	return &verifier{c: c, plan: p, codec: pack.NewCodec(c.Store.BlockSealer), hasher: c.Store.NewHasher()}
}

// verifyPack reads a pack and checks every byte of it. It compares the name with the
// hash, the header with the index, and the chunks with their IDs, except chunks of
// blocks that are verified with their family. It reports damage; an error means
// that the check cannot continue.
func (v *verifier) verifyPack(ctx context.Context, f backend.Info) error {
	p := v.c.indexed(f)
	fail := func(err error) { v.c.damage(&store.DamageError{File: f.Name, Err: err}, packHint) }
	if f.Size > pack.MaxSize {
		fail(fmt.Errorf("it has %d bytes, more than a pack can have", f.Size))
		v.c.markPack(p)
		return nil
	}
	file, err := v.read(ctx, f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errUnreachable) {
		return fmt.Errorf("read %s: %w", f.Name, err)
	}
	if int64(len(file)) < f.Size {
		fail(fmt.Errorf("reading stopped after %d of %d bytes: %w", len(file), f.Size, err))
	}
	if err := v.compare(file, p); err != nil {
		if right := v.c.Store.CorrectPack(file, p, false); right != nil {
			v.c.damage(&store.DamageError{File: f.Name, Err: errCorrectable}, correctHint)
			file = right
		} else {
			fail(err)
		}
	}
	for _, ref := range p.Blocks {
		if v.plan.inFamily(ref) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.verifyBlock(file, ref); err != nil {
			v.c.damage(err, packHint)
			v.c.markBlock(ref, nil)
		}
	}
	return nil
}

// indexed returns what the index has of a pack.
func (c *Checker) indexed(f backend.Info) index.Pack {
	id, _ := layout.ParseFileID(f.Name) // listPacks returns only names of packs
	p, _ := c.Store.Index.Pack(pack.ID(id))
	return p
}

// read reads a pack, or as much of it as can be read. The bytes are valid until the next
// call.
func (v *verifier) read(ctx context.Context, f backend.Info) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if int64(cap(v.file)) < f.Size {
		v.file = make([]byte, f.Size)
	}
	file := v.file[:f.Size]
	n := 0
	err := v.c.retry(ctx, func() (err error) { n, err = v.c.Store.Backend.ReadAt(ctx, f.Name, file, 0); return err })
	return file[:n], err
}

// compare compares the bytes of a pack with its name, and its header with the index.
func (v *verifier) compare(file []byte, p index.Pack) error {
	if pack.Name(file) != p.ID {
		return errors.New("its bytes do not match its name")
	}
	h, err := pack.ReadHeader(bytes.NewReader(file), int64(len(file)), v.c.Store.PackSealer)
	if err == nil && !v.sameAsIndex(p, h) {
		err = errors.New("the index and its header disagree")
	}
	return err
}

func (v *verifier) sameAsIndex(p index.Pack, h pack.Header) bool {
	if p.Kind != h.Kind || len(p.Blocks) != len(h.Blocks) {
		return false
	}
	for i, ref := range p.Blocks {
		_, b := v.c.Store.Index.Block(ref)
		o := &h.Blocks[i]
		if b.Offset != o.Offset || b.Stored != o.Stored || b.Encoding != o.Encoding || !slices.Equal(b.Dict, o.Dict) || !slices.Equal(b.Chunks, o.Chunks) {
			return false
		}
	}
	return true
}

// verifyBlock verifies a block that is in no family, from the bytes of its pack.
func (v *verifier) verifyBlock(file []byte, ref index.BlockRef) error {
	id, b := v.c.Store.Index.Block(ref)
	end := int64(b.Offset) + int64(b.Stored)
	if end > int64(len(file)) {
		return &store.DamageError{File: layout.PackName(id), Err: fmt.Errorf("block at %d is truncated", b.Offset)}
	}
	plain, err := v.decode(v.plain, id, file[b.Offset:end], &b, nil)
	if err == nil {
		v.plain = plain
	}
	return err
}

// decode decodes a block and checks its chunks. It uses the memory of dst if
// that is large enough.
func (v *verifier) decode(dst []byte, id pack.ID, sealed []byte, b *pack.Block, dict []byte) ([]byte, error) {
	plain, err := v.codec.Decode(dst[:0], sealed, b, dict)
	if errors.Is(err, crypto.ErrAuth) {
		if right := v.c.Store.BlockSealer.Correct(sealed, nil, false); right != nil { // the report names it
			v.c.noteCorrected(id)
			plain, err = v.codec.Decode(dst[:0], right, b, dict)
		}
	}
	if err != nil {
		return nil, &store.DamageError{File: layout.PackName(id), Err: fmt.Errorf("block at %d: %w", b.Offset, err)}
	}
	rest := plain
	for _, c := range b.Chunks {
		if v.hasher.ID(rest[:c.Length]) != c.ID {
			return nil, &store.DamageError{File: layout.PackName(id), Err: fmt.Errorf("block at %d: the bytes of chunk %s do not match its ID", b.Offset, c.ID.Short())}
		}
		rest = rest[c.Length:]
	}
	return plain, nil
}

// verifyFamily verifies the blocks of a family. It calls done with the number of sealed
// bytes of each block.
func (v *verifier) verifyFamily(ctx context.Context, refs []index.BlockRef, done func(int64)) error {
	defer func() { v.spare = nil }()
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return err
		}
		stored, err := v.verifyMember(ctx, ref, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errUnreachable) {
			return err
		}
		if err != nil {
			v.c.damage(err, packHint)
			v.c.markBlock(ref, nil)
		}
		v.plan.markVerified(ref, v.forget)
		done(stored)
	}
	return nil
}

// verifySkipped verifies the blocks that were skipped because the first copy of a base
// is bad. It uses other copies of the base. Call it after all other blocks were
// verified: until then, another goroutine may use the blocks that hold these copies.
func (c *Checker) verifySkipped(ctx context.Context, p *plan) error {
	for id := range c.bad {
		if c.hasOtherCopy(ctx, id) {
			delete(c.bad, id)
		}
	}
	c.damageCorrected()
	v := c.newVerifier(p)
	for _, ref := range c.skipped {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := v.verifyMember(ctx, ref, store.Detours{})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errUnreachable) {
			return err
		}
		if err != nil {
			_, dict := c.Store.Index.Dependencies(ref)
			if slices.ContainsFunc(dict, func(id chunk.ID) bool { return !c.Store.Index.Has(id) }) {
				c.orphans = append(c.orphans, err)
			} else {
				c.damage(err, packHint)
			}
			c.markBlock(ref, func(id chunk.ID) bool { return c.hasOtherCopy(ctx, id) })
		}
	}
	return nil
}

// noteCorrected notes a pack that has a block with a few wrong bytes.
func (c *Checker) noteCorrected(id pack.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corrected[id] = struct{}{}
}

// damageCorrected reports packs with wrong bytes that no other problem names.
func (c *Checker) damageCorrected() {
	for id := range c.corrected {
		name := layout.PackName(id)
		switch {
		case slices.ContainsFunc(c.Report.Problems, func(p Problem) bool { return p.File == name }):
		case c.verified[id]: // its name is the hash of the wrong bytes, so snap did not store it
			c.damage(&store.DamageError{File: name, Err: errors.New("it is named by its bytes, but a few of them are wrong")}, packHint)
		default:
			c.damage(&store.DamageError{File: name, Err: errCorrectable}, correctHint)
		}
	}
}

// errCorrectable says what is wrong with a pack that CorrectPack corrects.
var errCorrectable = errors.New("a few of its bytes are wrong; snap knows the right ones, so nothing is lost")

// errUnreachable says that nothing in the store can be read, which is not damage.
var errUnreachable = errors.New("the repository can no longer be read")

// retry retries a read that fails: a temporary failure must not be reported as damage,
// since a repair may remove what is damaged. The error is errUnreachable if the rest of
// the store cannot be read either.
func (c *Checker) retry(ctx context.Context, read func() error) error {
	var err error
	for range store.ReadTries {
		err = read()
		damaged := errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrUnreadable)
		if err == nil || ctx.Err() != nil || damaged || errors.Is(err, io.EOF) || errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	if errors.Is(err, store.ErrDamaged) || backend.Unreadable(ctx, c.Store.Backend, err) || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errUnreachable, err)
}

// hasOtherCopy reports whether a chunk with several copies can be read. It sets
// c.unreachable if nothing in the store can be read.
func (c *Checker) hasOtherCopy(ctx context.Context, id chunk.ID) bool {
	if len(c.Store.Index.Copies(id)) < 2 {
		return false
	}
	err := c.retry(ctx, func() error { _, err := c.Store.Chunk(ctx, id); return err })
	if errors.Is(err, errUnreachable) {
		c.unreachable = err
	}
	return err == nil
}

// verifyMember verifies one block of a family. It skips a block whose dictionary is
// known to be bad. If by is nil, it also skips a block whose dictionary cannot be
// read, and notes skipped blocks for verifySkipped.
func (v *verifier) verifyMember(ctx context.Context, ref index.BlockRef, by store.Detours) (stored int64, err error) {
	r := v.c.Store
	id, b := r.Index.Block(ref)
	stored = int64(b.Stored)
	if v.c.anyBad(b.Dict) {
		if by == nil {
			v.c.skipBlock(ref)
		}
		return stored, nil
	}
	var dict store.Scratch
	var depth int
	err = v.c.retry(ctx, func() (err error) { dict, depth, err = r.Dictionary(ctx, b.Dict, 1, by); return err })
	if by == nil && errors.Is(err, store.ErrDamaged) {
		v.c.skipBlock(ref)
		return stored, nil
	}
	if err != nil {
		return stored, inPack(id, err)
	}
	defer dict.Free()
	sealed := r.Scratch.Take(int(b.Stored))
	defer sealed.Free()
	err = v.c.retry(ctx, func() error { return r.ReadSealed(ctx, id, sealed.B, int64(b.Offset)) })
	if err != nil {
		return stored, inPack(id, fmt.Errorf("block at %d: %w", b.Offset, err))
	}
	needed := v.plan.left[ref] > 0
	plain, err := v.decode(v.takeMemory(b.Size(), needed), id, sealed.B, &b, dict.B)
	switch {
	case err != nil:
		return stored, r.FindCause(ctx, ref, err, map[index.BlockRef]bool{})
	case needed:
		r.Cache.Put(ref, store.Decoded{Plain: plain, Depth: depth})
	default:
		v.plain = plain
	}
	return stored, nil
}

// inPack adds the name of a pack to an error that names no file.
func inPack(id pack.ID, err error) error {
	if d := (*store.DamageError)(nil); !errors.As(err, &d) {
		return &store.DamageError{File: layout.PackName(id), Err: err}
	} else if d.File == "" {
		return &store.DamageError{File: layout.PackName(id), Err: d.Err}
	}
	return err
}

// takeMemory returns memory for a block. A needed block stays in the cache, so it must
// not share memory with another.
func (v *verifier) takeMemory(size int, needed bool) []byte {
	if !needed {
		return v.plain
	}
	for i, b := range v.spare {
		if cap(b) >= size && cap(b) <= size+size/4 {
			v.spare[i] = v.spare[len(v.spare)-1]
			v.spare = v.spare[:len(v.spare)-1]
			return b
		}
	}
	return nil
}

// maxSpare bounds the length of verifier.spare.
const maxSpare = 4

// forget drops a block that no other block needs any more. Only this goroutine has
// used it, so its memory can be used again.
func (v *verifier) forget(ref index.BlockRef) {
	if b, ok := v.c.Store.Cache.Remove(ref); ok && len(v.spare) < maxSpare {
		v.spare = append(v.spare, b.Plain)
	}
}

func (c *Checker) markPack(p index.Pack) {
	for _, ref := range p.Blocks {
		c.markBlock(ref, nil)
	}
}

// markBlock marks the chunks of a bad block as bad, and reports whether any of them
// was not marked before. It leaves out chunks for which Lookup returns another copy
// and, if except is not nil, chunks for which except returns true.
func (c *Checker) markBlock(ref index.BlockRef, except func(chunk.ID) bool) (changed bool) {
	_, b := c.Store.Index.Block(ref)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range b.Chunks {
		if loc, ok := c.Store.Index.Lookup(ch.ID); ok && loc.Block == ref && !c.isBad(ch.ID) && (except == nil || !except(ch.ID)) {
			c.bad[ch.ID] = struct{}{}
			changed = true
		}
	}
	return changed
}

// skipBlock adds a block to those that verifySkipped verifies.
func (c *Checker) skipBlock(ref index.BlockRef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped = append(c.skipped, ref)
}
