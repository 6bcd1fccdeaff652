package repo

import (
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
)

// encodeRun encodes a block in the way that is best for it, and seals it.
func (w *Writer) encodeRun(codec *pack.Codec, dst []byte, r *run) ([]byte, pack.Block, error) {
	frame, dict := w.bestDelta(codec, r)
	return sealRun(codec, dst, r, frame, dict)
}

// sealRun seals the better of two forms of a block: its delta against a
// dictionary, if there is one, and the full one.
func sealRun(codec *pack.Codec, dst []byte, r *run, frame []byte, dict []chunk.ID) ([]byte, pack.Block, error) {
	if frame == nil || len(frame) >= len(r.plain)/goodDelta {
		full, encoding, err := codec.Encode(dst, r.plain)
		if err != nil || frame == nil || len(frame)*keepDen > (len(full)-crypto.Overhead)*keepNum {
			return full, pack.Block{Encoding: encoding, Chunks: r.chunks}, err
		}
	}
	sealed, err := codec.SealFrame(dst, frame)
	return sealed, pack.Block{Encoding: pack.Delta, Dict: dict, Chunks: r.chunks}, err
}

// dictWeight is about what the IDs of a dictionary take, in bytes: in the pack's
// header and in the index, which are compressed to half of that.
func dictWeight(dict []chunk.ID) int { return len(chunk.ID{}) * len(dict) }

// bestDelta tries the near dictionary and, where that finds little, the far
// one. Without a usable dictionary the frame is nil. Failing to read one is no
// failure to store: the block then stands alone.
func (w *Writer) bestDelta(codec *pack.Codec, r *run) (frame []byte, dict []chunk.ID) {
	if len(r.near.list) == 0 {
		return nil, nil
	}
	if !r.place.file.moved.Load() {
		frame, dict = w.tryDelta(codec, r, &r.near)
		if frame != nil && len(frame) < len(r.plain)/goodDelta {
			return frame, dict
		}
		if len(r.far.list) == len(r.near.list) {
			return frame, dict // there is nothing farther around
		}
	}
	far, farDict := w.tryDelta(codec, r, &r.far)
	if far != nil && (frame == nil || len(far) < len(frame)/2) {
		r.place.file.moved.Store(len(far) < len(r.plain)/goodDelta)
		return far, farDict
	}
	return frame, dict
}

func (w *Writer) tryDelta(codec *pack.Codec, r *run, b *bases) ([]byte, []chunk.ID) {
	if len(b.list) == 0 {
		return nil, nil
	}
	ids, ok := chainRule{x: w.r.index}.bound(b.ids(), maxChain(len(r.plain)))
	if !ok {
		return nil, nil
	}
	dict, err := w.r.soundDictionary(w.ctx, ids)
	if err != nil {
		return nil, nil
	}
	defer dict.free()
	frame, err := codec.CompressDelta(r.plain, dict.b)
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
