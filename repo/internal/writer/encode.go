package writer

import (
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
)

// encodeBlock encodes a block in the way that is best for it, and seals it.
func (w *Writer) encodeBlock(codec *pack.Codec, dst []byte, r *Block) ([]byte, pack.Block, error) {
	frame, dict := w.bestDelta(codec, r)
	return SealBlock(codec, dst, r, frame, dict)
}

// SealBlock seals the better of two forms of a block: its delta against a
// dictionary, if there is one, and the full one.
func SealBlock(codec *pack.Codec, dst []byte, r *Block, frame []byte, dict []chunk.ID) ([]byte, pack.Block, error) {
	if frame == nil || len(frame) >= len(r.Plain)/goodDelta {
		full, encoding, err := codec.Encode(dst, r.Plain)
		if err != nil || frame == nil || len(frame)*keepDen > (len(full)-crypto.Overhead)*keepNum {
			return full, pack.Block{Encoding: encoding, Chunks: r.Chunks}, err
		}
	}
	sealed, err := codec.SealFrame(dst, frame)
	return sealed, pack.Block{Encoding: pack.Delta, Dict: dict, Chunks: r.Chunks}, err
}

// DictWeight is about what the IDs of a dictionary take, in bytes: in the pack's
// header and in the index, which are compressed to half of that.
func DictWeight(dict []chunk.ID) int { return len(chunk.ID{}) * len(dict) }

// bestDelta tries the near dictionary and, where that finds little, the far
// one. Without a usable dictionary the frame is nil. Failing to read one is no
// failure to store: the block then stands alone.
func (w *Writer) bestDelta(codec *pack.Codec, r *Block) (frame []byte, dict []chunk.ID) {
	if len(r.Near.List) == 0 {
		return nil, nil
	}
	if !r.Region.File.moved.Load() {
		frame, dict = w.tryDelta(codec, r, &r.Near)
		if frame != nil && len(frame) < len(r.Plain)/goodDelta {
			return frame, dict
		}
		if len(r.far.List) == len(r.Near.List) {
			return frame, dict // there is nothing farther around
		}
	}
	far, farDict := w.tryDelta(codec, r, &r.far)
	if far != nil && (frame == nil || len(far) < len(frame)/2) {
		r.Region.File.moved.Store(len(far) < len(r.Plain)/goodDelta)
		return far, farDict
	}
	return frame, dict
}

func (w *Writer) tryDelta(codec *pack.Codec, r *Block, b *chain.Bases) ([]byte, []chunk.ID) {
	if len(b.List) == 0 {
		return nil, nil
	}
	ids, ok := chain.Rule{Index: w.r.Index}.Bound(b.IDs(), chain.MaxStored(len(r.Plain)))
	if !ok {
		return nil, nil
	}
	dict, err := w.r.SoundDictionary(w.ctx, ids)
	if err != nil {
		return nil, nil
	}
	defer dict.Free()
	frame, err := codec.CompressDelta(r.Plain, dict.B)
	if err != nil {
		return nil, nil
	}
	return frame, ids
}

// A delta is kept at once when it takes less than one part in goodDelta of the
// plaintext; otherwise it must be smaller than keepNum/keepDen of the full
// form.
const (
	goodDelta = 8
	keepNum   = 3
	keepDen   = 4
)
