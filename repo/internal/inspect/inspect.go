package inspect

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

// PackContent is the content of a pack, according to its header.
type PackContent struct {
	ID     layout.FileID  `json:"id"`
	Size   int64          `json:"size"`
	Kind   string         `json:"kind"`
	Blocks []BlockContent `json:"blocks"`
}

// BlockContent is one block of a pack.
type BlockContent struct {
	Offset   uint32         `json:"offset"`
	Stored   uint32         `json:"stored"`
	Encoding string         `json:"encoding"`
	Dict     []chunk.ID     `json:"dictionary,omitempty"`
	Chunks   []ChunkContent `json:"chunks"`
}

// ChunkContent is one chunk of a block.
type ChunkContent struct {
	ID   chunk.ID `json:"id"`
	Size uint32   `json:"size"`
}

func packContent(id pack.ID, size int64, h pack.Header) PackContent {
	p := PackContent{ID: layout.FileID(id), Size: size, Kind: h.Kind.String(), Blocks: []BlockContent{}}
	for _, b := range h.Blocks {
		bc := BlockContent{Offset: b.Offset, Stored: b.Stored, Encoding: b.Encoding.String(), Dict: b.Dict}
		for _, c := range b.Chunks {
			bc.Chunks = append(bc.Chunks, ChunkContent{c.ID, c.Length})
		}
		p.Blocks = append(p.Blocks, bc)
	}
	return p
}

// Pack returns the content of a pack, according to its header. prefix is a prefix
// of its ID.
func Pack(ctx context.Context, r *store.Store, prefix string) (*PackContent, error) {
	id, err := r.Resolve(ctx, layout.PacksDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("pack %q: %w", prefix, err)
	}
	f, err := r.Backend.Stat(ctx, layout.PackName(pack.ID(id)))
	if err != nil {
		return nil, err
	}
	h, err := r.ReadHeader(ctx, f)
	if err != nil {
		return nil, err
	}
	p := packContent(pack.ID(id), f.Size, h)
	return &p, nil
}

// Index returns the packs that an index file lists. prefix is a prefix of its ID.
func Index(ctx context.Context, r *store.Store, prefix string) ([]PackContent, error) {
	id, err := r.Resolve(ctx, layout.IndexDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("index file %q: %w", prefix, err)
	}
	name := layout.IndexDir + id.String()
	b, err := r.ReadNamed(ctx, name, index.MaxFileSize)
	if err != nil {
		return nil, err
	}
	out := []PackContent{}
	err = index.OpenFile(b, r.IndexSealer, func(id pack.ID, size int64, h pack.Header) {
		out = append(out, packContent(id, size, h))
	})
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	return out, nil
}

// KeyContent is the name and the content of a key slot file.
type KeyContent struct {
	ID   layout.FileID   `json:"id"`
	File json.RawMessage `json:"file"`
	Info crypto.SlotInfo `json:"info"`
}

// Key returns a key slot. A key slot holds no secret in the clear. prefix is a
// prefix of its ID.
func Key(ctx context.Context, r *store.Store, prefix string) (*KeyContent, error) {
	id, err := r.Resolve(ctx, layout.KeysDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", prefix, err)
	}
	name := layout.KeysDir + id.String()
	b, err := backend.ReadAll(ctx, r.Backend, name, crypto.MaxSlotSize)
	if err != nil {
		return nil, err
	}
	s, err := access.ParseSlot(name, b)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(r.MasterKey)
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	return &KeyContent{id, b, info}, nil
}
