package store

import (
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// Correct returns the sealed bytes of a block as they were before a few of them were
// changed, or nil. The caller decodes them and checks the IDs of the chunks.
func (r *Store) Correct(id pack.ID, sealed []byte) []byte {
	right := r.BlockSealer.Correct(sealed, nil, false)
	if right == nil {
		return nil
	}
	if _, told := r.corrected.LoadOrStore(id, true); !told && r.Options.OnCorrected != nil {
		r.Options.OnCorrected(layout.PackName(id))
	}
	return right
}

// CorrectPack returns the bytes of a pack as they were before a few of them were changed,
// or nil. Those that it returns match the pack's name. See crypto.Sealer.Correct for
// thorough.
func (r *Store) CorrectPack(file []byte, p index.Pack, thorough bool) []byte {
	if int64(len(file)) != p.Size {
		return nil
	}
	blocks := make([]pack.Block, len(p.Blocks))
	for i, ref := range p.Blocks {
		_, blocks[i] = r.Index.Block(ref)
	}
	return pack.Correct(file, p.ID, blocks, r.BlockSealer, r.PackSealer, thorough)
}
