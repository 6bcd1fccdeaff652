package pack

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack/zdelta"
)

// Codec encodes and seals blocks, and unseals and decodes them. It keeps buffers between
// calls and is not safe for concurrent use.
type Codec struct {
	sealer  *crypto.Sealer
	level   zstd.EncoderLevel
	encoder *zstd.Encoder // of blocks up to smallWindow; made when first needed
	large   *zstd.Encoder // of longer blocks; made when first needed
	decoder *zstd.Decoder // made when first needed
	patcher *zstd.Decoder // for frames with a dictionary; made when first needed
	deltas  *zdelta.Encoder
	scratch []byte
	probe   []byte // samples of content
}

// NewCodec returns a codec that seals with sealer.
func NewCodec(sealer *crypto.Sealer) *Codec {
	return &Codec{sealer: sealer, level: zstd.SpeedDefault}
}

// Encode compresses plaintext if that saves space, seals it and appends it to dst. It
// returns only the appended bytes, and their encoding.
func (c *Codec) Encode(dst, plaintext []byte) ([]byte, Encoding, error) {
	if c.encoder == nil {
		enc, err := newEncoder(c.level, zstd.WithWindowSize(smallWindow))
		if err != nil {
			return nil, 0, err
		}
		c.encoder = enc
	}
	encoding, body := Raw, plaintext
	if c.mayShrink(plaintext) {
		enc := c.encoder
		if len(plaintext) > smallWindow {
			if c.large == nil {
				var err error
				if c.large, err = newEncoder(c.level); err != nil {
					return nil, 0, err
				}
			}
			enc = c.large
		}
		c.scratch = enc.EncodeAll(plaintext, c.scratch[:0])
		if shrinks(c.scratch, plaintext) {
			encoding, body = Zstd, c.scratch
		}
	}
	sealed, err := c.SealFrame(dst, body)
	return sealed, encoding, err
}

// smallWindow is the window of the usual encoder, in bytes. An encoder keeps a buffer of
// twice its window, so one with a small window takes 14 MiB less and stays in the
// processor's cache. Blocks of at most that length are encoded to the same bytes as with
// a large window.
const smallWindow = 1 << 20

// shrinks reports whether compression saves enough space to be worth the time to
// decompress: 1/64.
func shrinks(compressed, plain []byte) bool { return len(compressed) < len(plain)-len(plain)/64 }

// mayShrink reports whether compression may save space. For long content, it looks at
// samples and, if their bytes do not tell, compresses them to find out.
func (c *Codec) mayShrink(plain []byte) bool {
	if len(plain) < probeFrom {
		return true
	}
	if c.probe == nil {
		c.probe = make([]byte, 0, probeCount*probeSize)
	}
	c.probe = sample(c.probe[:0], plain)
	if uneven(c.probe) {
		return true
	}
	c.scratch = c.encoder.EncodeAll(c.probe, c.scratch[:0])
	return shrinks(c.scratch, c.probe)
}

// CompressDelta compresses plaintext with a dictionary and returns the frame, to be
// sealed with SealFrame. It decodes the frame with an independent decoder and compares
// the result, since a block is often the only copy of its content.
func (c *Codec) CompressDelta(plaintext, dict []byte) ([]byte, error) {
	if len(dict) == 0 || len(dict) > MaxDictSize {
		return nil, fmt.Errorf("dictionary of %d bytes", len(dict))
	}
	if c.deltas == nil {
		c.deltas = &zdelta.Encoder{}
	}
	frame, err := c.deltas.Encode(nil, plaintext, dict)
	if err != nil {
		return nil, err
	}
	dec, err := c.deltaDecoder(dict)
	if err != nil {
		return nil, err
	}
	if cap(c.scratch) < len(plaintext) {
		c.scratch = make([]byte, 0, len(plaintext))
	}
	back, err := dec.DecodeAll(frame, c.scratch[:0:len(plaintext)])
	if err != nil || !bytes.Equal(back, plaintext) {
		return nil, fmt.Errorf("a delta of %d bytes does not decode to its plaintext: %w", len(plaintext), cmp.Or(err, ErrDamaged))
	}
	return frame, nil
}

// SealFrame seals an encoded block and appends it to dst. It returns only the appended
// bytes.
func (c *Codec) SealFrame(dst, frame []byte) ([]byte, error) {
	at := len(dst)
	dst, err := c.sealer.Seal(dst, frame, nil)
	if err != nil {
		return nil, err
	}
	return dst[at:], nil
}

// Decode unseals and decodes a block and appends its plaintext to dst, which should be
// empty. dict is the block's dictionary, or nil. The error is ErrDamaged if the
// plaintext does not have the length that b says.
func (c *Codec) Decode(dst, sealed []byte, b *Block, dict []byte) ([]byte, error) {
	size := b.Size()
	if size > MaxBlockSize || len(sealed) != int(b.Stored) {
		return nil, fmt.Errorf("%w: block of %d bytes, stored in %d, read %d", ErrDamaged, size, b.Stored, len(sealed))
	}
	if b.Encoding == Raw {
		out, err := c.sealer.Open(dst, sealed, nil)
		return checkSize(out, size, err)
	}
	body, err := c.sealer.Open(c.scratch[:0], sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: block: %w", ErrDamaged, err)
	}
	c.scratch = body
	// The decoder stops at the capacity of its output, so a crafted frame cannot take
	// more memory.
	if cap(dst) < size {
		dst = make([]byte, 0, size)
	}
	switch b.Encoding {
	case Zstd:
		if c.decoder == nil {
			if c.decoder, err = newDecoder(); err != nil {
				return nil, err
			}
		}
		out, err := c.decoder.DecodeAll(body, dst[:0:size])
		return checkSize(out, size, err)
	case Delta:
		if len(dict) == 0 || len(dict) > MaxDictSize {
			return nil, fmt.Errorf("%w: dictionary of %d bytes", ErrDamaged, len(dict))
		}
		dec, err := c.deltaDecoder(dict)
		if err != nil {
			return nil, err
		}
		out, err := dec.DecodeAll(body, dst[:0:size])
		return checkSize(out, size, err)
	}
	return nil, fmt.Errorf("%w: unknown %s", ErrDamaged, b.Encoding)
}

// deltaDecoder returns the decoder of deltas with a dictionary. The decoder is reused,
// since it takes longer to make a decoder than to decode a small delta.
func (c *Codec) deltaDecoder(dict []byte) (_ *zstd.Decoder, err error) {
	set := zstd.WithDecoderDictRaw(0, dict)
	if c.patcher != nil {
		return c.patcher, c.patcher.ResetWithOptions(nil, set)
	}
	c.patcher, err = newDecoder(set)
	return c.patcher, err
}

func newEncoder(level zstd.EncoderLevel, more ...zstd.EOption) (*zstd.Encoder, error) {
	opts := append([]zstd.EOption{
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(1),
		// Sealing authenticates, so a checksum would waste four bytes.
		zstd.WithEncoderCRC(false),
	}, more...)
	enc, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		return nil, fmt.Errorf("start the compressor: %w", err)
	}
	return enc, nil
}

func newDecoder(more ...zstd.DOption) (*zstd.Decoder, error) {
	opts := append([]zstd.DOption{
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(MaxBlockSize),
		zstd.WithDecoderMaxWindow(MaxBlockSize),
	}, more...)
	dec, err := zstd.NewReader(nil, opts...)
	if err != nil {
		return nil, fmt.Errorf("start the decompressor: %w", err)
	}
	return dec, nil
}

func checkSize(out []byte, size int, err error) ([]byte, error) {
	switch {
	case errors.Is(err, crypto.ErrAuth), err != nil:
		return nil, fmt.Errorf("%w: block: %w", ErrDamaged, err)
	case len(out) != size:
		return nil, fmt.Errorf("%w: block of %d bytes, want %d", ErrDamaged, len(out), size)
	}
	return out, nil
}
