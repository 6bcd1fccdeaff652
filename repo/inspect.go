package repo

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
)

// PackContent is what a pack's header says, for inspection.
type PackContent struct {
	ID     FileID         `json:"id"`
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
	p := PackContent{ID: FileID(id), Size: size, Kind: h.Kind.String(), Blocks: []BlockContent{}}
	for _, b := range h.Blocks {
		bc := BlockContent{Offset: b.Offset, Stored: b.Stored, Encoding: b.Encoding.String(), Dict: b.Dict}
		for _, c := range b.Chunks {
			bc.Chunks = append(bc.Chunks, ChunkContent{c.ID, c.Length})
		}
		p.Blocks = append(p.Blocks, bc)
	}
	return p
}

// InspectPack returns what the header of a pack says. prefix is the beginning
// of its ID.
func (r *Repo) InspectPack(ctx context.Context, prefix string) (*PackContent, error) {
	id, err := r.resolve(ctx, packsDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("pack %q: %w", prefix, err)
	}
	f, err := r.be.Stat(ctx, packName(pack.ID(id)))
	if err != nil {
		return nil, err
	}
	h, err := r.readHeader(ctx, f)
	if err != nil {
		return nil, err
	}
	p := packContent(pack.ID(id), f.Size, h)
	return &p, nil
}

// InspectIndex returns what an index file lists. prefix is the beginning of
// its ID.
func (r *Repo) InspectIndex(ctx context.Context, prefix string) ([]PackContent, error) {
	id, err := r.resolve(ctx, indexDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("index file %q: %w", prefix, err)
	}
	name := indexDir + id.String()
	b, err := r.readNamed(ctx, name, index.MaxFileSize)
	if err != nil {
		return nil, err
	}
	out := []PackContent{}
	err = index.OpenFile(b, r.indexes, func(id pack.ID, size int64, h pack.Header) {
		out = append(out, packContent(id, size, h))
	})
	if err != nil {
		return nil, &DamageError{name, err}
	}
	return out, nil
}

// KeyContent is a key slot file and what it says about itself.
type KeyContent struct {
	ID   FileID          `json:"id"`
	File json.RawMessage `json:"file"`
	Info crypto.SlotInfo `json:"info"`
}

// InspectKey returns a key slot. prefix is the beginning of its ID. Nothing in
// it is secret.
func (r *Repo) InspectKey(ctx context.Context, prefix string) (*KeyContent, error) {
	id, err := r.resolve(ctx, keysDir, prefix)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", prefix, err)
	}
	name := keysDir + id.String()
	b, err := backend.ReadAll(ctx, r.be, name, crypto.MaxSlotSize)
	if err != nil {
		return nil, err
	}
	s, err := crypto.ParseSlot(b)
	if err != nil {
		return nil, &DamageError{name, err}
	}
	info, err := s.Info(r.master)
	if err != nil {
		return nil, &DamageError{name, err}
	}
	return &KeyContent{id, b, info}, nil
}
