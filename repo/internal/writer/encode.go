package writer

import (
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
)

// encodeBlock encodes a block in full or as a delta, whichever is better, and seals it.
func (w *Writer) encodeBlock(codec *pack.Codec, dst []byte, b *Block) ([]byte, pack.Block, error) {
	frame, dict := w.bestDelta(codec, b)
	return SealBlock(codec, dst, b, frame, dict)
}

// SealBlock seals the better form of a block: the delta frame, encoded with dict,
// or the full form. If frame is nil, there is no delta.
func SealBlock(codec *pack.Codec, dst []byte, b *Block, frame []byte, dict []chunk.ID) ([]byte, pack.Block, error) {
	if frame == nil || len(frame) >= len(b.Plain)/goodDelta {
		full, encoding, err := codec.Encode(dst, b.Plain)
		if err != nil || frame == nil || len(frame)*keepDen > (len(full)-crypto.Overhead)*keepNum {
			return full, pack.Block{Encoding: encoding, Chunks: b.Chunks}, err
		}
	}
	sealed, err := codec.SealFrame(dst, frame)
	return sealed, pack.Block{Encoding: pack.Delta, Dict: dict, Chunks: b.Chunks}, err
}

// DictWeight is the approximate number of bytes that the IDs of a dictionary take: in
// the pack header and in the index, each compressed to half.
func DictWeight(dict []chunk.ID) int { return len(chunk.ID{}) * len(dict) }

// bestDelta tries the near dictionary and, if that saves little, the far one. The
// frame is nil if neither can be read and used. Then the block is stored in full.
func (w *Writer) bestDelta(codec *pack.Codec, b *Block) (frame []byte, dict []chunk.ID) {
	if len(b.Near.List) == 0 {
		return nil, nil
	}
	if !b.Region.File.moved.Load() {
		frame, dict = w.tryDelta(codec, b, &b.Near)
		if frame != nil && len(frame) < len(b.Plain)/goodDelta {
			return frame, dict
		}
		if len(b.far.List) == len(b.Near.List) {
			return frame, dict // the far dictionary is the same
		}
	}
	far, farDict := w.tryDelta(codec, b, &b.far)
	if far != nil && (frame == nil || len(far) < len(frame)/2) {
		b.Region.File.moved.Store(len(far) < len(b.Plain)/goodDelta)
		return far, farDict
	}
	return frame, dict
}

func (w *Writer) tryDelta(codec *pack.Codec, b *Block, bases *chain.Bases) ([]byte, []chunk.ID) {
	if len(bases.List) == 0 {
		return nil, nil
	}
	ids, ok := chain.Rule{Index: w.r.Index}.Bound(bases.IDs(), chain.MaxStored(len(b.Plain)))
	if !ok {
		return nil, nil
	}
	dict, err := w.r.SoundDictionary(w.ctx, ids)
	if err != nil {
		return nil, nil
	}
	defer dict.Free()
	frame, err := codec.CompressDelta(b.Plain, dict.B)
	if err != nil {
		return nil, nil
	}
	return frame, ids
}

// A delta is used without trying the full form if it is shorter than 1/goodDelta of
// the plaintext. Otherwise it must be at most keepNum/keepDen of the full form.
const (
	goodDelta = 8
	keepNum   = 3
	keepDen   = 4
)
